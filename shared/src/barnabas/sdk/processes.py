"""The child processes of a worker: started, never forked, used again while they end well, and bounded in number.

`isolated.py` runs attempts in them. A child is killed with all that it has started; it can't outlive its worker,
because it ends when its wire closes.
"""

import asyncio
import socket
import subprocess
import sys

import msgspec
import structlog

from barnabas.sdk.child import TERMINATE_SECONDS, Child, Exit, Wire
from barnabas.sdk.wire import ChildSettings

log = structlog.get_logger(__name__)

START_SECONDS = 6.0
"""With the kill's grace this stays below the ten seconds after which an overdue attempt is taken back."""

# A child that was used this often is replaced: whatever leaks in handlers leaks for so long and no longer.
_RUNS_MAX = 100
# An idle child holds some 50 MB; after this long without work it was a burst.
_IDLE_SECONDS = 60.0


class ChildProcesses:
    """The children of one worker. `app` names its handlers as `module:attribute`.

    At most `running_max` run attempts at a time and at most `idle_max` are kept for the next ones. A child whose memory
    has had a peak above `retire_above_bytes` is not used again.
    """

    def __init__(
        self,
        *,
        app: str | None,
        running_max: int,
        idle_max: int = 2,
        retire_above_bytes: int = 512 << 20,
        start_seconds: float = START_SECONDS,
        allow_private_targets: bool = False,
        log_level: str = "info",
        log_form: str = "auto",
    ) -> None:
        self.start_seconds = start_seconds
        """How long an attempt may wait for a child, for room and start together."""
        self._app = app
        self._idle_max = idle_max
        self._retire_above_bytes = retire_above_bytes
        self._allow_private_targets = allow_private_targets
        self._log_level = log_level
        self._log_form = log_form
        self._room = asyncio.Semaphore(running_max)
        self._idle: list[Child] = []
        self._alive: set[Child] = set()
        self._is_closed = False

    @property
    def alive(self) -> int:
        """How many child processes there are."""
        return len(self._alive)

    async def take(self) -> "Child":
        """A child that is ready, once there is room for it; give it back after. The caller limits the wait."""
        await self._room.acquire()
        child: Child | None = None
        try:
            while self._idle:
                child = self._idle.pop()
                if child.is_usable:
                    child.wake()
                    return child
            child = await self._start()
            await child.ready
            return child
        except BaseException:
            if child is not None:
                child.kill_now()
            self._room.release()
            raise

    def give_back(self, child: "Child") -> None:
        """Say that a taken child has nothing to do any more. It is kept for the next attempt, or ended."""
        self._room.release()
        if (
            child.is_usable
            and not self._is_closed
            and child.runs < _RUNS_MAX
            and child.peak_bytes <= self._retire_above_bytes
            and len(self._idle) < self._idle_max
        ):
            self._idle.append(child)
            child.rest(_IDLE_SECONDS, self._retire)
        else:
            child.retire()

    async def close(self) -> None:
        """End every child, by force those that don't end themselves within a second."""
        self._is_closed = True
        for child in self._idle:
            child.retire()
        self._idle.clear()
        gone = [child.exited for child in self._alive]
        if gone:
            await asyncio.wait(gone, timeout=TERMINATE_SECONDS)
        for child in list(self._alive):
            child.kill_now()
        gone = [child.exited for child in self._alive]
        if gone:
            await asyncio.wait(gone, timeout=TERMINATE_SECONDS)

    def _retire(self, child: "Child") -> None:
        if child in self._idle:
            self._idle.remove(child)
        child.retire()

    async def _start(self) -> "Child":
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        child = Child(loop)
        try:
            ours.setblocking(False)
            settings = ChildSettings(
                fd=theirs.fileno(),
                app=self._app,
                allow_private_targets=self._allow_private_targets,
                log_level=self._log_level,
                log_form=self._log_form,
            )
            await loop.create_unix_connection(lambda: Wire(child), sock=ours)
            # A session of its own: signals from a terminal don't reach it, and what it starts is killed with it.
            await loop.subprocess_exec(
                lambda: Exit(child),
                sys.executable,
                "-m",
                "barnabas.sdk.child_main",
                msgspec.json.encode(settings).decode(),
                stdin=subprocess.DEVNULL,
                stdout=None,
                stderr=None,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            child.kill_now()
            raise
        finally:
            theirs.close()
        self._alive.add(child)
        child.exited.add_done_callback(lambda _: self._alive.discard(child))
        log.debug("child_started", pid=child.pid)
        return child
