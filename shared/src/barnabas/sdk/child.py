"""The worker's handle on one child process and its wire: what it was told, what it answered, how it is ended.

Callbacks of the event loop only, no task and no thread: one future a child for each thing that may be waited for.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import cast

from barnabas.sdk.wire import Ended, Frames, Ready, Refused, Reported, Start, Stop, frame, from_child_decoder

# Between SIGTERM, with which a handler can clean up, and SIGKILL.
TERMINATE_SECONDS = 1.0
# How long the last words of a process that has ended may take to be read.
_LAST_WORDS_SECONDS = 0.1


class ChildNotStartedError(Exception):
    """A child process could not load its handlers, or died before it was ready."""


class Child:
    """One child process and its wire, on the worker's event loop. `ended` is the answer to the latest `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.ready: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[Ended | None] = loop.create_future()
        self.pid: int | None = None
        self.runs = 0
        self.peak_bytes = 0
        self._wire: asyncio.Transport | None = None
        self._process: asyncio.SubprocessTransport | None = None
        self._on_progress: Callable[[float, str | None], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_killed = False

    @property
    def is_usable(self) -> bool:
        """Alive, and nobody has asked it to end."""
        return not (self._is_killed or self.exited.done() or self._wire is None or self._wire.is_closing())

    def start(self, start: Start, *, on_progress: Callable[[float, str | None], None]) -> None:
        """Begin an attempt; `ended` answers with how it ended, or with None when the process died over it."""
        assert self.is_usable, "a taken child is alive, or its attempt is over at once"
        self.runs += 1
        self.ended = self._loop.create_future()
        self._on_progress = on_progress
        self._send(start)

    def stop(self) -> None:
        """Tell the handler that its job is cancelled."""
        self._send(Stop())

    def kill(self) -> None:
        """End the process: SIGTERM, so that the handler can clean up, and a second later SIGKILL."""
        if not self._is_killed:
            self._is_killed = True
            self._signal(signal.SIGTERM)
            self._timer = self._loop.call_later(TERMINATE_SECONDS, self.kill_now)

    def kill_now(self) -> None:
        """End the process and what it has started, without a word."""
        self._is_killed = True
        if self._wire is not None:
            self._wire.abort()
        self._signal(signal.SIGKILL)

    def rest(self, seconds: float, after: Callable[["Child"], None]) -> None:
        """Call `after` when nobody wants this child for so long."""
        self._timer = self._loop.call_later(seconds, after, self)

    def wake(self) -> None:
        """It is wanted again."""
        if self._timer is not None:
            self._timer.cancel()

    def retire(self) -> None:
        """Let it end by itself, and a second later by force."""
        self.wake()
        if not self.exited.done():
            if self._wire is not None:
                self._wire.close()
            self._timer = self._loop.call_later(TERMINATE_SECONDS, self.kill_now)

    def connected(self, wire: asyncio.Transport) -> None:
        """The wire is there."""
        self._wire = wire

    def started(self, process: asyncio.SubprocessTransport) -> None:
        """The process is there."""
        self._process = process
        self.pid = process.get_pid()

    def forked(self, pid: int) -> None:
        """The process is there, and its template will say when it has ended."""
        self.pid = pid

    def received(self, body: bytes) -> None:
        """The child has said something."""
        match from_child_decoder.decode(body):
            case Reported(percent=percent, message=message):
                if self._on_progress is not None:
                    self._on_progress(percent, message)
            case Ended() as ended:
                self.peak_bytes = ended.peak_bytes
                if not self.ended.done():
                    self.ended.set_result(ended)
            case Ready():
                if not self.ready.done():
                    self.ready.set_result(None)
            case Refused(reason=reason):
                if not self.ready.done():
                    self.ready.set_exception(ChildNotStartedError(reason))

    def has_exited(self) -> None:
        """The process has ended."""
        if self._process is not None:
            self._process.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._is_killed:
            # What it has started may have ignored SIGTERM.
            self._signal(signal.SIGKILL)
        if not self.ready.done():
            self.ready.set_exception(ChildNotStartedError("the child process died before it was ready"))
            # Nobody may be waiting: a child that was killed while it started.
            self.ready.exception()
        # What it said last may still be in the wire. Its end is no sign to wait for: what it has started may hold it
        # open.
        self._loop.call_later(_LAST_WORDS_SECONDS, self.hung_up)
        if not self.exited.done():
            self.exited.set_result(None)

    def hung_up(self) -> None:
        """The wire is closed: nothing more will be said."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self, message: Start | Stop) -> None:
        if self._wire is not None and not self._wire.is_closing():
            self._wire.write(frame(message))

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            try:
                # The process leads a group of its own, so its id is that of the group.
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                pass  # it is gone; on macOS a group of zombies answers with a missing permission


class Wire(asyncio.Protocol):
    """The worker's end of the socket pair."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._frames = Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._child.connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        for body in self._frames.feed(data):
            self._child.received(body)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop, after the last bytes."""
        self._child.hung_up()


class Exit(asyncio.SubprocessProtocol):
    """Hears of the process's end."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._child.started(cast("asyncio.SubprocessTransport", transport))

    def process_exited(self) -> None:
        """Called by the loop."""
        self._child.has_exited()
