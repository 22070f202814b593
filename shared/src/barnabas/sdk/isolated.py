"""One attempt in a process of its own: really killed at its deadline, and free to die without harm to its neighbours.

For handlers registered with `isolate="process"`, and for every job that was lost with its process before. To the worker
it looks like any other attempt.
"""

import asyncio
import time
from typing import Any

from barnabas.domain.attempts import HandedBack, Lost, Outcome, Raised, Snoozed
from barnabas.sdk.app import Handler
from barnabas.sdk.child import Child, ChildNotStartedError
from barnabas.sdk.context import Context
from barnabas.sdk.processes import ChildProcesses
from barnabas.sdk.running import CANCEL_GRACE_SECONDS, Interruption, Run, interrupted_outcome
from barnabas.sdk.wire import Start, unpack_outcome

# Until then some of the line have run: a child runs a short job in milliseconds.
_PUT_OFF_SECONDS = 2.0
# A cancelled handler ends itself within its grace; the answer needs a moment to arrive.
_ANSWER_SECONDS = 0.5
# Timers may fire a little before their time; this much is not early.
_EARLY_SECONDS = 0.01
# More than the time between SIGTERM and SIGKILL. A process that outlives both is stuck in the kernel.
_EXIT_SECONDS = 2.0


class IsolatedAttempt:
    """One run of a handler in one of `children`: made once, run once. Arguments as for `Attempt`.

    It keeps its own deadline, which counts from the moment at which the handler starts in its child: a machine that is
    slow to start processes costs no attempt. An attempt that finds no child in time (six seconds, unless set otherwise)
    is handed back uncharged; one that finds a long line of its own tenant's is put off, so that it holds no slot
    meanwhile.
    """

    __slots__ = (
        "_beginning",
        "_child",
        "_children",
        "_grace_seconds",
        "_raw_payload",
        "_reason",
        "ctx",
        "handler",
        "timeout_seconds",
    )

    def __init__(
        self,
        handler: Handler,
        raw_payload: bytes,
        ctx: Context,
        *,
        children: ChildProcesses,
        timeout_seconds: float | None = None,
        cancel_grace_seconds: float = CANCEL_GRACE_SECONDS,
    ) -> None:
        self.handler = handler
        self.ctx = ctx
        self.timeout_seconds = handler.timeout if timeout_seconds is None else timeout_seconds
        self._raw_payload = raw_payload
        self._children = children
        self._grace_seconds = cancel_grace_seconds
        self._reason: Interruption | None = None
        self._beginning: asyncio.Timeout | None = None
        self._child: Child | None = None

    async def run(self, task: "asyncio.Task[Any] | None" = None) -> Run:
        """Run the handler to its outcome; raises nothing but a `CancelledError` from outside, which kills the child."""
        if self._is_interrupted():
            return Run(self._final(None))
        if self._children.is_crowded_for(self.ctx.tenant_id):
            return Run(Snoozed(_PUT_OFF_SECONDS))
        try:
            async with asyncio.timeout(self._children.wait_seconds) as self._beginning:
                child = await self._children.take(self.ctx.tenant_id)
        except TimeoutError:
            return Run(self._final(None) if self._is_interrupted() else HandedBack())
        except ChildNotStartedError as error:
            return Run(Raised("child_not_started", str(error), retryable=True))
        finally:
            self._beginning = None
        try:
            if self._is_interrupted():
                return Run(self._final(None))
            if not child.is_usable:
                # It died while it was idle, which says nothing about this job.
                return Run(HandedBack())
            return Run(await self._run_in(child))
        finally:
            self._children.give_back(child)

    def interrupt(self, reason: Interruption) -> None:
        """Ask the attempt to end; call it on the event loop's thread. The first reason decides the outcome.

        A time-out or a drain kills the child: SIGTERM, then SIGKILL after a second. A cancel first tells the handler
        and kills after the grace. A time-out before the attempt's own deadline is ignored, so that a worker which
        counts from the claim does no harm. A success that still arrives stays a success.
        """
        is_running = self._child is not None
        if reason is Interruption.TIMEOUT and not (is_running and self.ctx.seconds_left < _EARLY_SECONDS):
            return
        first = self._reason is None
        if first:
            self._reason = reason
        self.ctx.request_stop()
        loop = asyncio.get_running_loop()
        if self._beginning is not None:
            self._beginning.reschedule(loop.time())
        elif self._child is not None:
            if reason is not Interruption.CANCEL:
                self._child.kill()
            elif first:
                self._child.stop()
                loop.call_later(self._grace_seconds + _ANSWER_SECONDS, self._kill, self._child)

    async def _run_in(self, child: Child) -> Outcome:
        ctx = self.ctx
        ctx.deadline_monotonic = time.monotonic() + self.timeout_seconds
        self._child = child
        deadline = asyncio.get_running_loop().call_later(self.timeout_seconds, self.interrupt, Interruption.TIMEOUT)
        try:
            child.start(
                Start(
                    job_type=self.handler.type,
                    payload=self._raw_payload,
                    job_id=ctx.job_id,
                    tenant_id=ctx.tenant_id,
                    attempt=ctx.attempt,
                    max_attempts=ctx.max_attempts,
                    losses=ctx.losses,
                    metadata=dict(ctx.metadata),
                    timeout_seconds=self.timeout_seconds,
                    cancel_grace_seconds=self._grace_seconds,
                ),
                on_progress=ctx.progress,
            )
            ended = await child.ended
            if not child.is_usable:
                # Killed or dying: the attempt is not over before the process is, or it might still change the world.
                await asyncio.wait([child.exited], timeout=_EXIT_SECONDS)
        except asyncio.CancelledError:
            child.kill_now()
            raise
        finally:
            deadline.cancel()
            self._child = None
        return self._final(None if ended is None else unpack_outcome(ended))

    def _kill(self, child: Child) -> None:
        # By now it may have ended this attempt and be running another one.
        if self._child is child:
            child.kill()

    def _is_interrupted(self) -> bool:
        return self._reason is not None

    def _final(self, outcome: Outcome | None) -> Outcome:
        """What the attempt counts as; `outcome` is the handler's own ending, None where it had none."""
        if self._reason is None:
            return Lost() if outcome is None else outcome
        return interrupted_outcome(self._reason, outcome, timeout_seconds=self.timeout_seconds)
