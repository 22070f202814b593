"""A TCP proxy that treats connections badly: it cuts, resets, delays, throttles, swallows answers or never gives one.

Stands between clients and a server on loopback. What it does is its mode, which holds for open connections and new ones
from one moment to the next. Chance is seeded. The port is the proxy's for as long as it lives, also while it refuses.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, assert_never

from barnabas_local import ports

_CHUNK_BYTES = 65_536
# A slow pipe is slow all the time, not still for seconds and then fast.
_PIECES_A_SECOND = 10
# On close: zero seconds of lingering make the kernel send RST instead of FIN.
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Pass:
    """Everything goes through."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Open connections are closed and new ones refused, as if nobody listened."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Open connections are reset, and new ones as soon as they are accepted."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Each piece arrives `seconds` later, and up to `jitter_seconds` on top, both ways."""

    seconds: float
    jitter_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Throttle:
    """Each connection carries so much each way."""

    bytes_per_second: int


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """One direction is swallowed: with `answers` the server does what it was asked, and nobody hears of it.

    A connection that lost bytes is reset when the mode ends: no peer may take what follows for the whole.
    """

    swallowed: Literal["answers", "requests"] = "answers"


@dataclass(frozen=True, slots=True)
class Silence:
    """New connections are accepted and open ones stay, but nothing travels, not even that the other side has gone.

    Those that lost something are reset when the mode ends.
    """


Mode = Pass | Cut | Reset | Delay | Throttle | HalfOpen | Silence

_Direction = Literal["requests", "answers"]


@dataclass(eq=False, slots=True)
class _Connection:
    """A client's connection and, once there is one, the one to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    lost_bytes: bool = False

    def abort(self) -> None:
        for side in self._sides():
            # Nobody promised to read what is still to be sent, and waiting for that could take for ever.
            side.transport.abort()

    def close(self) -> None:
        """Once what was carried so far is out."""
        for side in self._sides():
            side.close()

    def reset(self) -> None:
        for side in self._sides():
            with contextlib.suppress(OSError):
                side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            side.transport.abort()

    def _sides(self) -> list[asyncio.StreamWriter]:
        return [self.client] if self.server is None else [self.client, self.server]


@dataclass(slots=True)
class Proxy:
    """A running proxy. Made by `open_proxy`."""

    port: int
    target: tuple[str, int]
    choice: random.Random
    mode: Mode = field(default_factory=Pass)
    accepted: int = 0
    """Connections that were accepted so far."""
    _open: set[_Connection] = field(default_factory=set)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{ports.LOOPBACK}:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    @property
    def damaged(self) -> int:
        """How many of them have lost something, and will be reset."""
        return sum(connection.lost_bytes for connection in self._open)

    async def set(self, mode: Mode) -> None:
        """From now on; when this returns, it is in force for every connection."""
        self.mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        for connection in list(self._open):
            if isinstance(mode, Cut):
                connection.abort()
            elif isinstance(mode, Reset) or connection.lost_bytes:
                connection.reset()
        if isinstance(mode, Cut):
            self._stop_listening()
        elif self._server is None:
            await self._listen()

    async def close(self) -> None:
        """Close everything."""
        self._stop_listening()
        for connection in list(self._open):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=_bound(self.port))

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(writer)
        self._open.add(connection)
        try:
            while isinstance(self.mode, Silence):
                # What the client sends stays in the kernel; like this it costs nothing, however many come.
                connection.lost_bytes = True
                await self._changed.wait()
            if isinstance(self.mode, Cut | Reset) or writer.transport.is_closing():
                return
            theirs, connection.server = await asyncio.open_connection(*self.target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(connection, reader, connection.server, "requests"))
                both.create_task(self._pump(connection, theirs, writer, "answers"))
        except* OSError:
            pass  # one of the two has gone, or the server isn't there: the other learns it the same way
        finally:
            self._open.discard(connection)
            if isinstance(self.mode, Reset):
                connection.reset()
            else:
                connection.close()

    async def _pump(
        self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: _Direction
    ) -> None:
        """Carry one direction until it ends, and then end the other as well."""
        while True:
            data = await source.read(self._piece_bytes())
            if not data:
                while isinstance(self.mode, Silence):
                    connection.lost_bytes = True
                    await self._changed.wait()
                # A peer that closed wants no more: none of what we carry has halves that are closed apart.
                sink.close()
                return
            if await self._carried(connection, len(data), way):
                sink.write(data)
                await sink.drain()

    async def _carried(self, connection: _Connection, size_bytes: int, way: _Direction) -> bool:
        """Whether a piece goes on, once it has taken its time."""
        mode = self.mode
        match mode:
            case Pass():
                return not connection.lost_bytes
            case Delay():
                await asyncio.sleep(mode.seconds + mode.jitter_seconds * self.choice.random())
            case Throttle():
                await asyncio.sleep(size_bytes / mode.bytes_per_second)
            case HalfOpen():
                connection.lost_bytes |= mode.swallowed == way
            case Silence():
                connection.lost_bytes = True
                return False
            case Cut() | Reset():
                return False
            case _:
                assert_never(mode)
        return not (connection.lost_bytes and isinstance(mode, HalfOpen) and mode.swallowed == way)

    def _piece_bytes(self) -> int:
        if isinstance(self.mode, Throttle):
            return max(1, self.mode.bytes_per_second // _PIECES_A_SECOND)
        return _CHUNK_BYTES


@asynccontextmanager
async def open_proxy(
    target_port: int, *, choice: random.Random, avoid: frozenset[int] = frozenset()
) -> AsyncIterator[Proxy]:
    """A proxy before a port of loopback that lets everything pass; the server need not be there yet.

    Its own port is none of `avoid`.
    """
    # Bound and never listening, so that the port stays ours while connections are refused.
    with _own(avoid | {target_port}) as own:
        proxy = Proxy(own.getsockname()[1], (ports.LOOPBACK, target_port), choice)
        await proxy.set(Pass())
        try:
            yield proxy
        finally:
            await proxy.close()


def _own(avoid: frozenset[int]) -> socket.socket:
    while True:
        port = ports.free_port(avoid=avoid)
        try:
            return _bound(port, also_in_use=False)
        except OSError:
            # A server could have it, but connections of its last one linger.
            avoid |= {port}


def _bound(port: int, *, also_in_use: bool = True) -> socket.socket:
    bound = socket.socket()
    # Without it the port is a taken one for everybody else who looks.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, also_in_use)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((ports.LOOPBACK, port))
    except OSError:
        bound.close()
        raise
    return bound
