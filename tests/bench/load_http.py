"""A process that submits jobs by HTTP: it reads an order from stdin and answers with what it saw, both as JSON.

It speaks HTTP/1.1 on bare sockets with bodies made beforehand, so that it takes little of the machine that it measures
(about a tenth of what an HTTP library takes). Connections are kept alive and each has one request in flight. What is
refused for overload is sent again.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench.ended import EndedJobs

_PAUSE_SECONDS = 0.02
_ANSWER_SECONDS = 30.0


class HttpOrder(msgspec.Struct, kw_only=True):
    """What to send. Ends after `seconds`, or after `jobs` where that is sooner."""

    url: str
    keys: list[str]
    """API keys; requests take them in turn."""
    job_type: str
    pad_bytes: int
    connections: int
    seconds: float
    batch: int = 0
    """Jobs in a request; 0 sends single posts."""
    jobs: int | None = None
    rate: float | None = None
    """Jobs a second, in requests at even intervals; as fast as answers come without it."""
    outstanding: int | None = None
    """At most so many jobs accepted and not ended; needs `kafka`."""
    kafka: str | None = None
    priorities: list[str] = msgspec.field(default_factory=lambda: ["medium"])
    """Rounds of the keys take them in turn."""
    hold_seconds: float = 0.0
    """What the handlers `hold` and `vary` sleep for."""


class HttpSeen(msgspec.Struct, kw_only=True):
    """What came back."""

    accepted: int
    rejected: int
    refused: int
    seconds: float
    answers: list[tuple[float, float]]
    """When each answer came, by the wall clock, and how long after its request was due."""
    cpu_seconds: float


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request in flight."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = bytearray()
        self._needed = 0
        self._body_at = 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send it; the future has status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._needed = 0
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            self._body_at = end + 4
            self._needed = self._body_at + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self._buffer) >= self._needed and self._answer is not None:
            answer = (int(self._buffer[9:12]), bytes(self._buffer[self._body_at : self._needed]))
            del self._buffer[: self._needed]
            self._needed = 0
            self._answer.set_result(answer)
            self._answer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))


class _Load:
    def __init__(self, order: HttpOrder) -> None:
        self.order = order
        self.seen = HttpSeen(accepted=0, rejected=0, refused=0, seconds=0.0, answers=[], cpu_seconds=0.0)
        self._per_request = max(1, order.batch)
        self._sent = 0
        self._begin = 0.0
        self._turn: Iterator[int] = itertools.count()
        self._ended = EndedJobs(order.kafka) if order.outstanding is not None and order.kafka else None
        self._ended_before = 0
        self._ended_since = 0
        self._bodies = [_body_template(order, priority) for priority in order.priorities]
        self._batches = [b"[" + b",".join([body % 0.0] * order.batch) + b"]" for body in self._bodies]
        self._heads = [[_head(order, key, body) for key in order.keys] for body in self._bodies]

    async def run(self) -> HttpSeen:
        order = self.order
        target = urlsplit(order.url)
        if self._ended is not None:
            self._ended_before = await asyncio.to_thread(self._ended.count)
        loop = asyncio.get_running_loop()
        assert target.hostname is not None
        open_ones = [
            (await loop.create_connection(Connection, target.hostname, target.port or 80))[1]
            for _ in range(order.connections)
        ]
        self._begin = time.monotonic()
        cpu = time.process_time()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch())
            sending = [group.create_task(self._send_all(connection)) for connection in open_ones]
            await asyncio.wait(sending)
            watching.cancel()
        self.seen.seconds = time.monotonic() - self._begin
        self.seen.cpu_seconds = time.process_time() - cpu
        return self.seen

    async def _watch(self) -> None:
        while self._ended is not None:
            self._ended_since = await asyncio.to_thread(self._ended.count) - self._ended_before
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _send_all(self, connection: Connection) -> None:
        while (due := await self._next_due()) is not None:
            request = self._request()
            while True:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    status, body = await connection.send(request)
                if status != 503:
                    break
                self.seen.refused += 1
                await asyncio.sleep(_PAUSE_SECONDS)
            self.seen.answers.append((time.time(), time.monotonic() - due))
            if status not in (200, 202):
                raise RuntimeError(f"{status}: {body[:500]!r}")
            accepted = body.count(b'"accepted"') if self.order.batch else 1
            self.seen.accepted += accepted
            self.seen.rejected += self._per_request - accepted

    async def _next_due(self) -> float | None:
        """When the next request is due, waited for; None at the end."""
        order = self.order
        end = self._begin + order.seconds
        if order.jobs is not None and self._sent >= order.jobs:
            return None
        number, self._sent = self._sent, self._sent + self._per_request
        due = time.monotonic()
        if order.rate is not None:
            due = self._begin + number / order.rate
            if due >= end:
                return None
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        while order.outstanding is not None and number + self._per_request - self._ended_since > order.outstanding:
            if time.monotonic() >= end:
                return None
            await asyncio.sleep(_PAUSE_SECONDS / 4)
            due = time.monotonic()
        # The first is sent however late a busy machine is: what follows counts on there being one.
        return due if number == 0 or time.monotonic() < end else None

    def _request(self) -> bytes:
        turn, key = divmod(next(self._turn), len(self.order.keys))
        level = turn % len(self._bodies)
        return self._heads[level][key] + (
            self._batches[level] if self.order.batch else self._bodies[level] % time.time()
        )


def _body_template(order: HttpOrder, priority: str) -> bytes:
    """A job whose payload has the moment of sending, always equally long, and a pad."""
    return b'{"type":"%b","priority":"%b","payload":{"sent":%%17.6f,"seconds":%g,"pad":"%b"}}' % (
        order.job_type.encode(),
        priority.encode(),
        order.hold_seconds,
        b"x" * order.pad_bytes,
    )


def _head(order: HttpOrder, key: str, body: bytes) -> bytes:
    target = urlsplit(order.url)
    path = "/v1/jobs/batch" if order.batch else "/v1/jobs"
    one = len(body % 0.0)
    length = order.batch * (one + 1) + 1 if order.batch else one
    return (
        f"POST {path} HTTP/1.1\r\nHost: {target.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def main() -> None:
    """Carry out the order on stdin."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=HttpOrder)
    seen = uvloop.run(_Load(order).run())
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()
