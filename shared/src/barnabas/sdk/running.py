"""One attempt of one job: from payload bytes to an outcome, interruptible from outside.

It runs inside a long-lived slot of the worker and makes no task and no timer of its own: the worker keeps all deadlines
in one heap and calls `Attempt.interrupt`. A cancellation that comes from elsewhere always passes through.
"""

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, assert_never

from barnabas.domain.attempts import Cancelled, HandedBack, Outcome, Succeeded, TimedOut
from barnabas.sdk.app import Handler
from barnabas.sdk.context import Context
from barnabas.sdk.outcomes import (
    PayloadInvalidError,
    call_sync,
    decode_payload,
    outcome_of_error,
    outcome_of_value,
    payload_invalid,
)

CANCEL_GRACE_SECONDS = 1.0
"""How long a handler may go on after it was told that its job is cancelled, where nothing else is set."""

# An async handler that goes on after its cancellation may be cleaning up; asking again sooner would cut that short, and
# ten seconds after its deadline the attempt is taken back from this worker anyway.
_ASK_AGAIN_SECONDS = 5.0


class Interruption(Enum):
    """Why a running attempt has to end."""

    TIMEOUT = "timeout"
    """Its deadline has passed."""
    CANCEL = "cancel"
    """The tenant cancelled the job."""
    DRAIN = "drain"
    """The worker stops, or lost the right to run it: the job goes back uncharged."""


@dataclass(frozen=True, slots=True)
class Run:
    """How an attempt ended, and what it left behind.

    `still_running` is the future of a sync handler's thread that goes on although its attempt has ended: the slot
    counts as taken until it is done. Its own outcome then means nothing any more.
    """

    outcome: Outcome
    still_running: "Future[Outcome] | None" = None


class Attempt:
    """One run of a handler on this process's event loop, or in one of its `threads`: made once, run once.

    `timeout_seconds` is what a time-out reports; left out, it is the handler's own. `cancel_grace_seconds` is how long
    an async handler may go on after it was told that its job is cancelled.
    """

    __slots__ = (
        "_asked",
        "_grace_seconds",
        "_raw_payload",
        "_reason",
        "_task",
        "_threads",
        "_timer",
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
        threads: Executor,
        timeout_seconds: float | None = None,
        cancel_grace_seconds: float = CANCEL_GRACE_SECONDS,
    ) -> None:
        self.handler = handler
        self.ctx = ctx
        self.timeout_seconds = handler.timeout if timeout_seconds is None else timeout_seconds
        self._raw_payload = raw_payload
        self._threads = threads
        self._grace_seconds = cancel_grace_seconds
        self._reason: Interruption | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked = 0

    async def run(self, task: "asyncio.Task[Any] | None" = None) -> Run:
        """Run the handler to its outcome; `task` is the one that runs it, for callers that have it at hand.

        Raises nothing but `CancelledError`, and only for a cancellation that did not come from `interrupt`.
        """
        if self._reason is not None:
            return Run(self._final(None))
        if task is None:
            task = asyncio.current_task()
        assert task is not None, "an attempt runs inside a task"
        cancellations_before = task.cancelling()
        self._task = task
        still_running: Future[Outcome] | None = None
        outcome: Outcome | None
        try:
            if self.handler.is_async:
                outcome = await self._call_async(task, cancellations_before)
            else:
                future = self._threads.submit(call_sync, self.handler, self._raw_payload, self.ctx)
                try:
                    outcome = await asyncio.wrap_future(future)
                except asyncio.CancelledError:
                    # Its thread may have ended in the very moment in which it was interrupted.
                    outcome = future.result() if future.done() and not future.cancelled() else None
                    still_running = None if future.done() else future
        finally:
            self._task = None
            if self._timer is not None:
                self._timer.cancel()
        if self._asked or task.cancelling() != cancellations_before:
            for _ in range(self._asked):
                task.uncancel()
            if task.cancelling() > cancellations_before:
                # Somebody else wants this task to end; a handler that swallowed that must not keep the slot alive.
                self.ctx.request_stop()
                raise asyncio.CancelledError
        return Run(self._final(outcome), still_running)

    def interrupt(self, reason: Interruption) -> None:
        """Ask the attempt to end; call it on the event loop's thread. The first reason decides the outcome.

        A time-out or a drain ends the wait at once: an async handler is cancelled, a sync one goes on in its thread
        with `ctx.cancelled` set. A cancel first only tells the handler; an async one is cancelled after the grace, a
        sync one at its deadline. A success that still arrives stays a success. Before the start and after the end it
        does no harm.
        """
        first = self._reason is None
        if first:
            self._reason = reason
        self.ctx.request_stop()
        if self._task is None:
            return
        if reason is not Interruption.CANCEL:
            self._ask()
        elif first and self.handler.is_async:
            self._timer = self._task.get_loop().call_later(self._grace_seconds, self._ask)

    async def _call_async(self, task: asyncio.Task[Any], cancellations_before: int) -> Outcome | None:
        """The handler's own ending, or None when it was cancelled from outside of it."""
        handler = self.handler
        try:
            payload = decode_payload(handler, self._raw_payload)
        except PayloadInvalidError as error:
            return payload_invalid(error)
        try:
            called = handler.function(payload, self.ctx) if handler.takes_context else handler.function(payload)
            value = await _in_own_context(called)
        except asyncio.CancelledError as error:
            # Where nobody cancelled this task the handler awaited something that was: an error like any other.
            return outcome_of_error(error) if task.cancelling() == cancellations_before else None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary around handlers
            return outcome_of_error(error)
        return outcome_of_value(value)

    def _ask(self) -> None:
        if self._task is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._asked += 1
        self._task.cancel()
        self._timer = self._task.get_loop().call_later(_ASK_AGAIN_SECONDS, self._ask)

    def _final(self, outcome: Outcome | None) -> Outcome:
        """What the attempt counts as; `outcome` is the handler's own ending, None where it had none."""
        if self._reason is None:
            assert outcome is not None, "only an interruption leaves an attempt without an ending of its own"
            return outcome
        return interrupted_outcome(self._reason, outcome, timeout_seconds=self.timeout_seconds)


def interrupted_outcome(reason: Interruption, outcome: Outcome | None, *, timeout_seconds: float) -> Outcome:
    """What an interrupted attempt counts as; `outcome` is the handler's own ending, where it still came to one."""
    if isinstance(outcome, Succeeded):
        return outcome
    match reason:
        case Interruption.CANCEL:
            # What the handler raised on its way out explains the cancelled job.
            return Cancelled() if outcome is None else outcome
        case Interruption.TIMEOUT:
            return TimedOut(timeout_seconds)
        case Interruption.DRAIN:
            return HandedBack()
        case _:
            assert_never(reason)


@types.coroutine
def _in_own_context(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run the coroutine in a copy of this task's context, as a task of its own would.

    What a handler leaves in context variables (a bound logger, a trace) must not reach the next attempt in the same
    slot, which may be another tenant's.
    """
    context = contextvars.copy_context()
    step: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    while True:
        try:
            waits_for = context.run(step, argument)
        except StopIteration as done:
            return done.value
        try:
            argument = yield waits_for
            step = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is for the coroutine, cancellations too
            step, argument = coroutine.throw, error


async def run_attempt(
    handler: Handler, raw_payload: bytes, ctx: Context, *, threads: Executor, timeout_seconds: float | None = None
) -> Run:
    """Run one attempt under its own deadline, for callers without a heap of deadlines."""
    attempt = Attempt(handler, raw_payload, ctx, threads=threads, timeout_seconds=timeout_seconds)
    loop = asyncio.get_running_loop()
    deadline = loop.call_later(attempt.timeout_seconds, attempt.interrupt, Interruption.TIMEOUT)
    try:
        return await attempt.run()
    finally:
        deadline.cancel()
