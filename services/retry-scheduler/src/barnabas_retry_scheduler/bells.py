"""Bells: how the leader's one question wakes the steps that answer a yes, and nobody else.

A step that is woken runs until it has nothing left to do. What Postgres or Kafka refuses is tried again after a growing
rest; the question goes on meanwhile, so no step holds up another.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from barnabas.errors import TransientError
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas.runtime.within import set_within

log = structlog.get_logger(__name__)

# The bell, the step's own time and the stop wake the loop.
_LISTEN_SECONDS = 60.0
# A server that comes back should find its work done within seconds.
_PAUSE_SECONDS = 0.5

Step = Callable[[], Awaitable[float | None]]
"""Runs once; returns after how many seconds to run again by itself, None to wait for the bell."""


class Bell:
    """Rung by the question, heard by one step. Ringing twice before it is heard is ringing once."""

    __slots__ = ("_rung",)

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """There is something to do."""
        self._rung.set()

    async def heard(self, seconds: float) -> bool:
        """Wait for a ring, at most so long; true when it rang."""
        if not await set_within(self._rung, seconds):
            return False
        self._rung.clear()
        return True


@dataclass(frozen=True, slots=True)
class Bells:
    """One for each kind of yes."""

    timers: Bell = field(default_factory=Bell)
    outbox: Bell = field(default_factory=Bell)
    leases: Bell = field(default_factory=Bell)
    overdue: Bell = field(default_factory=Bell)
    gates: Bell = field(default_factory=Bell)
    types: Bell = field(default_factory=Bell)
    jobs_wiped: Bell = field(default_factory=Bell)
    events_wiped: Bell = field(default_factory=Bell)

    def ring_wiped(self) -> None:
        """A topic was made anew: whoever makes such a loss good has something to do."""
        self.jobs_wiped.ring()
        self.events_wiped.ring()


async def answer(bell: Bell, step: Step, stop: Stop) -> None:
    """Run `step` whenever the bell rings, or when its own last answer asked for it, until the stop."""
    loop = asyncio.get_running_loop()
    failures = 0
    run_at: float | None = None
    stop.on_set(bell.ring)
    while not stop.is_set():
        rest = _LISTEN_SECONDS if run_at is None else min(_LISTEN_SECONDS, run_at - loop.time())
        # While it fails, the step keeps its own pace: the question rings every second.
        rang = await stop.wait(max(0.0, rest)) if failures else await bell.heard(max(0.0, rest))
        due = run_at is not None and loop.time() >= run_at
        if stop.is_set() or not (due or (rang and not failures)):
            continue
        try:
            again = await step()
        except TransientError as error:
            failures += 1
            pause = retry_pause(_PAUSE_SECONDS, failures, jitter=random.random())
            log.warning(
                "step_postponed",
                step=getattr(step, "__qualname__", repr(step)),
                code=error.code,
                reason=str(error),
                failures=failures,
                rest_seconds=round(pause, 3),
            )
            run_at = loop.time() + pause
        else:
            failures = 0
            run_at = None if again is None else loop.time() + again


async def repeat(step: Step, stop: Stop, *, bell: Bell | None = None) -> None:
    """Run `step` at once, then again after as many seconds as it returns, or when the bell rings, until the stop.

    Failures as in `answer`.
    """
    bell = bell or Bell()
    bell.ring()
    await answer(bell, step, stop)
