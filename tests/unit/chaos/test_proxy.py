"""The proxy's modes on plain sockets: what each side of a connection sees."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from barnabas_local import ports
from tests.chaos.proxy import Cut, Delay, HalfOpen, Pass, Proxy, Reset, Silence, Throttle, open_proxy
from tests.support.eventually import eventually

_LIMIT_SECONDS = 60


@dataclass(slots=True)
class Echo:
    """A server that answers each line with the same line."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)
    left: int = 0
    """Connections that have ended."""
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            pass  # a reset, which is what some tests are about
        finally:
            self.left += 1
            writer.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def open_echo(port: int = 0) -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.connected, ports.LOOPBACK, port)
    echo.port = server.sockets[0].getsockname()[1]
    try:
        yield echo
    finally:
        server.close()
        await echo.close()


@dataclass(slots=True)
class Client:
    """One connection through the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, line: bytes) -> None:
        self.writer.write(line + b"\n")

    async def line(self) -> bytes:
        async with asyncio.timeout(_LIMIT_SECONDS):
            return (await self.reader.readline()).rstrip(b"\n")

    async def ask(self, line: bytes) -> bytes:
        self.send(line)
        return await self.line()


@asynccontextmanager
async def connect(proxy: Proxy) -> AsyncIterator[Client]:
    async with asyncio.timeout(_LIMIT_SECONDS):
        reader, writer = await asyncio.open_connection(ports.LOOPBACK, proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with open_echo() as opened:
        yield opened


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with open_proxy(echo.port, choice=random.Random(1)) as opened:
        yield opened


async def test_what_is_sent_arrives_whole_and_in_order(proxy: Proxy) -> None:
    lines = [b"%d:" % number + b"x" * 3_000 for number in range(200)]
    async with connect(proxy) as client:
        for line in lines:
            client.send(line)
        answers = [await client.line() for _ in lines]

    assert answers == lines


async def test_all_that_the_server_said_arrives_before_its_end() -> None:
    said = b"y" * 3_000_000

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(talk, ports.LOOPBACK, 0)
    async with open_proxy(server.sockets[0].getsockname()[1], choice=random.Random(1)) as proxy:
        async with connect(proxy) as client, asyncio.timeout(_LIMIT_SECONDS):
            heard = await client.reader.read()
        server.close()

    assert len(heard) == len(said)


async def test_the_end_of_a_client_reaches_the_server(proxy: Proxy, echo: Echo) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")

    await eventually(lambda: echo.left, until=lambda left: left == 1, timeout=_LIMIT_SECONDS)
    await eventually(lambda: proxy.connections, until=lambda count: count == 0, timeout=_LIMIT_SECONDS)


async def test_a_cut_closes_what_is_open_and_refuses_what_is_new_until_it_is_over(proxy: Proxy) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(Cut())
        ended = await client.line()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(ports.LOOPBACK, proxy.port)
        taken = not ports.is_free(proxy.port)
        await proxy.set(Pass())
        async with connect(proxy) as again:
            answer = await again.ask(b"b")

    assert ended == b""
    assert taken
    assert answer == b"b"


async def test_a_reset_is_seen_as_one_by_open_and_new_connections(proxy: Proxy) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(Reset())
        with pytest.raises(ConnectionResetError):
            await client.line()
    async with connect(proxy) as client:
        with pytest.raises(ConnectionResetError):
            await client.line()


async def test_a_delay_holds_every_piece_both_ways(proxy: Proxy) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(Delay(0.2, jitter_seconds=0.1))
        began = time.monotonic()
        answer = await client.ask(b"b")

    assert answer == b"b"
    assert time.monotonic() - began >= 0.39


async def test_a_throttled_connection_carries_no_more_than_it_may(proxy: Proxy) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(Throttle(20_000))
        began = time.monotonic()
        answer = await client.ask(b"x" * 10_000)

    assert len(answer) == 10_000
    # A piece may have been on its way when the pipe became narrow; both ways take half a second each.
    assert time.monotonic() - began >= 0.8


async def test_with_lost_answers_the_server_hears_and_the_client_does_not(proxy: Proxy, echo: Echo) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(HalfOpen("answers"))
        client.send(b"b")
        await eventually(lambda: echo.heard, until=lambda heard: heard == [b"a\n", b"b\n"], timeout=_LIMIT_SECONDS)
        # The proxy has swallowed it once the connection is marked; only then may the mode end.
        await eventually(lambda: proxy.damaged, until=lambda count: count == 1, timeout=_LIMIT_SECONDS)
        await proxy.set(Pass())
        with pytest.raises(ConnectionResetError):
            await client.line()


async def test_with_lost_requests_the_server_hears_nothing(proxy: Proxy, echo: Echo) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(HalfOpen("requests"))
        client.send(b"b")
        await eventually(lambda: proxy.damaged, until=lambda count: count == 1, timeout=_LIMIT_SECONDS)
        await proxy.set(Pass())
        with pytest.raises(ConnectionResetError):
            await client.line()

    assert echo.heard == [b"a\n"]


async def test_a_connection_that_lost_nothing_survives_lost_answers(proxy: Proxy) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(HalfOpen("answers"))
        await proxy.set(Pass())
        answer = await client.ask(b"b")

    assert answer == b"b"


async def test_in_silence_nobody_hears_that_the_other_has_gone(proxy: Proxy, echo: Echo) -> None:
    async with connect(proxy) as client:
        await client.ask(b"a")
        await proxy.set(Silence())
    await eventually(lambda: proxy.damaged, until=lambda count: count == 1, timeout=_LIMIT_SECONDS)

    assert echo.left == 0
    await proxy.set(Pass())
    await eventually(lambda: echo.left, until=lambda left: left == 1, timeout=_LIMIT_SECONDS)


async def test_in_silence_a_new_connection_is_accepted_and_gets_nothing(proxy: Proxy, echo: Echo) -> None:
    await proxy.set(Silence())
    async with connect(proxy) as client:
        client.send(b"a")
        await eventually(lambda: proxy.damaged, until=lambda count: count == 1, timeout=_LIMIT_SECONDS)
        await proxy.set(Pass())
        with pytest.raises(ConnectionResetError):
            await client.line()

    assert echo.heard == []


async def test_a_server_that_is_not_there_ends_the_connection_and_one_that_comes_back_is_found() -> None:
    port = ports.free_port()
    async with open_proxy(port, choice=random.Random(1)) as proxy:
        async with connect(proxy) as client:
            ended = await client.line()
        async with open_echo(port), connect(proxy) as client:
            answer = await client.ask(b"a")

    assert ended == b""
    assert answer == b"a"


async def test_a_proxy_leaves_the_port_of_a_server_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [port for port in range(20_000, 20_200) if ports.is_free(port)][:3]
    monkeypatch.setattr(ports, "_RANGE", few)

    for _ in range(60):
        async with open_proxy(few[0], choice=random.Random(1)) as proxy:
            assert proxy.port != few[0]


async def test_a_proxy_leaves_a_port_on_which_connections_of_another_server_linger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, free, target = [port for port in range(20_000, 20_200) if ports.is_free(port)][:3]
    with socket.create_server((ports.LOOPBACK, left)) as server, socket.create_connection(server.getsockname()):
        # Who ends a connection first is the one that waits afterwards.
        server.accept()[0].close()
    monkeypatch.setattr(ports, "_RANGE", [left, free])

    for _ in range(20):
        async with open_proxy(target, choice=random.Random(1)) as proxy:
            assert proxy.port == free


async def test_the_same_seed_delays_alike(echo: Echo) -> None:
    async def jitters(seed: int) -> list[float]:
        choice = random.Random(seed)
        async with open_proxy(echo.port, choice=choice) as proxy, connect(proxy) as client:
            await proxy.set(Delay(0.0, jitter_seconds=0.001))
            for _ in range(3):
                await client.ask(b"a")
        return [choice.random() for _ in range(3)]

    assert await jitters(7) == await jitters(7)
