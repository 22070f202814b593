"""A webhook receiver for tests: real HTTP on loopback, with scripted answers and the ways in which some misbehave.

It records every request with its headers and raw body, and verifies signatures with the `standardwebhooks` library, as
a tenant would. What a path answers is a script: its answers in order, the last one for ever.
"""

import asyncio
import gzip
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from tests.support.eventually import eventually


@dataclass(frozen=True, slots=True)
class Received:
    """One request. Header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    """Monotonic seconds."""
    connection: int
    """Which connection it came on, counted from 1."""

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The body as JSON, if `secret` signed it not long ago; raises `WebhookVerificationError`."""
        return Webhook(secret).verify(self.body, dict(self.headers))


Behaviour = Callable[["Exchange"], Awaitable[None]]
"""What to do with a request once it has been read."""


@dataclass(slots=True)
class Exchange:
    """A request and the connection to answer on."""

    received: Received
    writer: asyncio.StreamWriter
    closing: asyncio.Event
    """Set when the receiver closes."""
    sent_bytes: Counter[str]
    """Bytes of huge bodies that the other side took, by path."""
    keep: bool = True
    """Whether the connection is used again."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self, seconds: float) -> None:
        """Wait, or until the receiver closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closing.wait()


def answer(
    status: int = 204,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    delay_seconds: float = 0.0,
    until: asyncio.Event | None = None,
) -> Behaviour:
    """A well-behaved answer, after `delay_seconds` and once `until` is set."""

    async def behave(exchange: Exchange) -> None:
        if delay_seconds:
            await exchange.rest(delay_seconds)
        if until is not None:
            await until.wait()
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await exchange.send("\r\n".join([*lines, "", ""]).encode() + body)

    return behave


def hang() -> Behaviour:
    """Never answers."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False
        await exchange.rest(3600)

    return behave


def drip_body(*, interval_seconds: float = 0.02, status: int = 200) -> Behaviour:
    """Answers at once, then sends its body a byte at a time, for ever."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False
        await exchange.send(b"HTTP/1.1 %d OK\r\nContent-Length: 1000000000\r\n\r\n" % status)
        while not exchange.closing.is_set():
            await exchange.send(b".")
            await exchange.rest(interval_seconds)

    return behave


def drip_headers(*, interval_seconds: float = 0.02) -> Behaviour:
    """Sends headers that never end."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False
        await exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not exchange.closing.is_set():
            await exchange.send(b"a")
            await exchange.rest(interval_seconds)

    return behave


def huge_body(size_bytes: int, *, status: int = 200) -> Behaviour:
    """Answers with that many bytes, as fast as the other side takes them."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False
        await exchange.send(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (status, size_bytes))
        piece = bytes(65_536)
        for _ in range(0, size_bytes, len(piece)):
            if exchange.closing.is_set():
                return
            await exchange.send(piece)
            exchange.sent_bytes[exchange.received.path] += len(piece)

    return behave


def gzip_bomb(inflated_bytes: int) -> Behaviour:
    """Answers with few bytes that inflate to many, although nobody asked for compression."""
    bomb = gzip.compress(bytes(inflated_bytes))
    return answer(200, headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"}, body=bomb)


def flood_informational() -> Behaviour:
    """Sends `100 Continue` for ever and never an answer."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False
        while not exchange.closing.is_set():
            await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await exchange.rest(0.001)

    return behave


def many_headers(count: int) -> Behaviour:
    """Answers with that many headers."""
    return answer(200, headers={f"X-Many-{number}": "x" for number in range(count)})


def raw(data: bytes) -> Behaviour:
    """Sends these bytes, whatever they are, and closes."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False
        await exchange.send(data)

    return behave


def reset() -> Behaviour:
    """Breaks the connection without an answer."""

    async def behave(exchange: Exchange) -> None:
        exchange.keep = False
        exchange.writer.transport.abort()

    return behave


def answer_then_close(status: int = 204) -> Behaviour:
    """Answers, promises to keep the connection, and closes it."""

    async def behave(exchange: Exchange) -> None:
        await answer(status)(exchange)
        exchange.keep = False

    return behave


@dataclass(slots=True)
class Receiver:
    """A running receiver. Made by `open_receiver`."""

    port: int = 0
    host: str = "127.0.0.1"
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    keep_requests: bool = True
    """Whether requests are recorded; a benchmark only counts."""
    count: int = 0
    in_flight: Counter[str] = field(default_factory=Counter)
    in_flight_max: Counter[str] = field(default_factory=Counter)
    """The most requests at once, by path."""
    sent_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes of huge bodies that the other side took, by path."""
    _scripts: dict[str, list[Behaviour]] = field(default_factory=dict)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def url(self, path: str = "/") -> str:
        """The address of a path."""
        return f"http://{self.host}:{self.port}{path}"

    def script(self, path: str, *behaviours: Behaviour | int) -> str:
        """What a path does, request by request, the last for ever; a number is a plain answer. Returns its URL."""
        self._scripts[path] = [answer(each) if isinstance(each, int) else each for each in behaviours]
        return self.url(path)

    def at(self, path: str) -> list[Received]:
        """What came to one path, in order."""
        return [request for request in self.requests if request.path == path]

    async def until(self, path: str, count: int, timeout: float = 60.0) -> list[Received]:
        """Wait for that many requests to a path."""
        return await eventually(lambda: self.at(path), until=lambda got: len(got) >= count, timeout=timeout)

    async def close(self) -> None:
        """Close what is open, hanging answers included."""
        self._closing.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        try:
            keep = True
            while keep:
                keep = await self._answer_next(reader, writer, connection)
            writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other side is gone, or speaks something else
        finally:
            if self._closing.is_set() or not writer.is_closing():
                writer.transport.abort()

    async def _answer_next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        received = await _read(reader, connection)
        self.count += 1
        if self.keep_requests:
            self.requests.append(received)
        path = received.path
        self.in_flight[path] += 1
        self.in_flight_max[path] = max(self.in_flight_max[path], self.in_flight[path])
        exchange = Exchange(received, writer, self._closing, self.sent_bytes)
        try:
            await self._next(path)(exchange)
        finally:
            self.in_flight[path] -= 1
        return exchange.keep

    def _next(self, path: str) -> Behaviour:
        script = self._scripts.get(path)
        if not script:
            return _PLAIN
        return script.pop(0) if len(script) > 1 else script[0]


@asynccontextmanager
async def open_receiver(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on a port of its own that answers 204 unless told otherwise."""
    receiver = Receiver(host=host)
    # Shared, so that tests which need one certain port may run side by side.
    server = await asyncio.start_server(receiver.connected, host, port, reuse_port=bool(port))
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()


_PLAIN = answer(204)


async def _read(reader: asyncio.StreamReader, connection: int) -> Received:
    head = await reader.readuntil(b"\r\n\r\n")
    request_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert "transfer-encoding" not in headers, "the body's length is known before it is sent"
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(request_line.split(" ")[1], headers, body, time.monotonic(), connection)


def order_of(requests: Sequence[Received]) -> list[str]:
    """The paths in the order in which they were called."""
    return [request.path for request in requests]
