"""Parts of a service that run every so often: reapers, relays, samplers, clock synchronisation.

A step that meets a `TransientError` is tried again later with a growing, jittered pause; any other exception is our own
mistake and ends the process. Tests don't come through here: they call the step.
"""

import random
from collections.abc import Awaitable, Callable

import structlog

from barnabas.errors import TransientError
from barnabas.runtime.stop import Stop

log = structlog.get_logger(__name__)

# However long a dependency was away, its return is noticed within this; a process asks few questions in that time.
_PAUSE_CAP_SECONDS = 5.0


async def every(
    seconds: float, step: Callable[[], Awaitable[object]], stop: Stop, *, jitter: Callable[[], float] = random.random
) -> None:
    """Run `step` every `seconds` until the stop; `seconds` is the rest between two runs, not their rate.

    The first run comes after a random part of the interval, so that replicas started together don't step together.
    After n transient failures in a row the rest is `seconds * 2**n`, at most 5 s (or `seconds`, if that is longer),
    of which a random half is taken off. `jitter` is uniform in [0, 1).
    """
    failures = 0
    rest = seconds * jitter()
    while not await stop.wait(rest):
        try:
            await step()
        except TransientError as error:
            failures += 1
            rest = retry_pause(seconds, failures, jitter=jitter())
            log.warning(
                "periodic_step_postponed",
                step=getattr(step, "__qualname__", repr(step)),
                code=error.code,
                reason=str(error),
                failures=failures,
                rest_seconds=round(rest, 3),
            )
        else:
            failures = 0
            rest = seconds


def retry_pause(seconds: float, failures: int, *, jitter: float) -> float:
    """How long to rest after `failures` failures in a row: doubling, capped, between half of it and all of it."""
    cap = max(_PAUSE_CAP_SECONDS, seconds)
    # The exponent is bounded because 2.0 ** 1024 overflows, and an outage may last for days.
    pause = min(cap, seconds * 2.0 ** min(failures, 32))
    return pause * (0.5 + 0.5 * jitter)
