"""The child process of a worker: loads the same handlers and runs one attempt at a time, on its main thread.

Started by `barnabas.sdk.starting` and by nobody else: by itself, or forked from a template. It ends when its worker
does: a closed wire means that the worker is gone or done with it. SIGTERM ends the running attempt so that its handler
can clean up; the worker kills it soon after.
"""

import asyncio
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn, cast

import msgspec
import structlog

from barnabas.domain.attempts import Outcome, Raised
from barnabas.runtime import logs
from barnabas.sdk.app import Handler
from barnabas.sdk.context import Context, Progress
from barnabas.sdk.loading import load_handlers
from barnabas.sdk.outcomes import call_sync
from barnabas.sdk.running import Attempt, Interruption
from barnabas.sdk.template import fork_on_demand
from barnabas.sdk.threads import HandlerThreads
from barnabas.sdk.wire import (
    ChildSettings,
    Frames,
    FromChild,
    Ready,
    Refused,
    Reported,
    Start,
    Stop,
    frame,
    pack_outcome,
    to_child_decoder,
)

log = structlog.get_logger(__name__)

# A handler may report in a tight loop; ten a second are more than anybody can read.
_REPORT_SECONDS = 0.1
_TERMINATED = 128 + signal.SIGTERM


class _TerminatedError(BaseException):
    """SIGTERM, as an exception that handlers don't catch by mistake."""


class AttemptServer:
    """Runs the attempts that come over the wire, one at a time."""

    def __init__(self, wire: socket.socket, handlers: Mapping[str, Handler]) -> None:
        self._wire = wire
        self._handlers = handlers
        self._inbox: queue.SimpleQueue[Start | None] = queue.SimpleQueue()
        self._runner = asyncio.Runner()
        self._threads = HandlerThreads(1)
        self._ctx: Context | None = None
        self._attempt: Attempt | None = None
        self._is_terminated = False
        self._reported_at = 0.0

    def serve(self) -> int:
        """Run attempts until the wire closes; the exit code."""
        signal.signal(signal.SIGTERM, self._terminate)
        threading.Thread(target=self._read, name="wire", daemon=True).start()
        try:
            self._send(Ready())
            while (start := self._inbox.get()) is not None:
                outcome = self._run(start)
                self._send(pack_outcome(outcome, peak_bytes=_peak_bytes()))
                if self._is_terminated:
                    return _TERMINATED
        except _TerminatedError:
            return _TERMINATED
        self._runner.close()
        return 0

    def _run(self, start: Start) -> Outcome:
        handler = self._handlers.get(start.job_type)
        if handler is None:
            return Raised("handler_missing", f"this worker's child has no handler {start.job_type!r}", retryable=True)
        ctx = Context(
            job_id=start.job_id,
            tenant_id=start.tenant_id,
            job_type=start.job_type,
            attempt=start.attempt,
            max_attempts=start.max_attempts,
            deadline_monotonic=time.monotonic() + start.timeout_seconds,
            metadata=start.metadata,
            losses=start.losses,
            on_progress=self._report,
        )
        self._reported_at = 0.0
        self._ctx = ctx
        try:
            if not handler.is_async:
                return call_sync(handler, start.payload, ctx)
            self._attempt = Attempt(
                handler,
                start.payload,
                ctx,
                threads=self._threads,
                timeout_seconds=start.timeout_seconds,
                cancel_grace_seconds=start.cancel_grace_seconds,
            )
            return self._runner.run(self._attempt.run()).outcome
        finally:
            self._ctx = self._attempt = None
            last = ctx.take_progress()
            if last is not None:
                self._send(Reported(last.percent, last.message))

    def _report(self, progress: Progress) -> None:
        # The latest that falls into the pause is sent when the attempt ends.
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_SECONDS and self._ctx is not None:
            self._reported_at = now
            self._ctx.take_progress()
            self._send(Reported(progress.percent, progress.message))

    def _send(self, message: FromChild) -> None:
        try:
            self._wire.sendall(frame(message))
        except OSError:
            self._abandon()

    def _read(self) -> None:
        """On a thread of its own: what the worker says, while the main thread runs a handler."""
        frames = Frames()
        while True:
            try:
                data = self._wire.recv(65_536)
            except OSError:
                data = b""
            if not data:
                break
            for body in frames.feed(data):
                message = to_child_decoder.decode(body)
                if isinstance(message, Start):
                    self._inbox.put(message)
                else:
                    assert isinstance(message, Stop), "the worker says start or stop"
                    self._interrupt(Interruption.CANCEL)
        if self._ctx is not None:
            self._abandon()
        self._inbox.put(None)

    def _interrupt(self, reason: Interruption) -> None:
        attempt, ctx = self._attempt, self._ctx
        if attempt is not None:
            self._runner.get_loop().call_soon_threadsafe(attempt.interrupt, reason)
        elif ctx is not None:
            ctx.request_stop()

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_terminated = True
        self._interrupt(Interruption.DRAIN)
        if self._attempt is None:
            raise _TerminatedError

    def _abandon(self) -> NoReturn:
        """The worker is gone in the middle of an attempt: someone else runs it again, so this one must not go on.

        Nor may what it has started: the group is its own.
        """
        os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _peak_bytes() -> int:
    """The most memory that this process has held.

    `ru_maxrss` won't do on Linux: it begins with what the parent held when it started this process, so the children of
    a large worker would all look large.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> int:
    """Entry point: `python -m barnabas.sdk.child_main <settings>`."""
    settings = msgspec.json.decode(sys.argv[1], type=ChildSettings)
    # Ctrl-C is meant for the worker, which drains and then ends its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(
        service="worker",
        level=cast('Literal["debug", "info", "warning", "error"]', settings.log_level),
        form=cast('Literal["json", "console", "auto"]', settings.log_form),
    )
    wire = socket.socket(fileno=settings.fd)
    # What a handler starts must not hold the wire open.
    wire.set_inheritable(False)
    try:
        handlers = load_handlers(settings.app, allow_private_targets=settings.allow_private_targets)
    except Exception as error:  # noqa: BLE001 - importing a user's module can raise anything
        wire.sendall(frame(Refused(f"{type(error).__name__}: {error}"[:1000])))
        return 1
    if settings.forks:
        forked = fork_on_demand(wire)
        if forked is None:
            return 0
        wire = forked
    return AttemptServer(wire, handlers).serve()


if __name__ == "__main__":
    sys.exit(main())
