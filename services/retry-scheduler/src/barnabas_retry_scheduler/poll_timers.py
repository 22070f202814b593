"""The poller of timers: what is due by the database and still waits becomes ready and is told to Kafka.

Delays over an hour and start times live in Postgres alone; what a delay tier carries is looked at five seconds late.
"""

from barnabas.postgres.timers import take_due_timers
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import answer
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import tell_committed

_BATCH = 1_000
# A steady stream of timers is taken in batches, not one by one; nobody notices this much.
_REST_SECONDS = 0.02
# Further ahead than that the next question rings in time.
_HORIZON_SECONDS = 1.0


async def poll_timers(resources: Resources, stop: Stop) -> None:
    """Poll at the very moment at which the next known timer is due."""

    async def step() -> float | None:
        return await poll_once(resources)

    await answer(resources.bells.timers, step, stop)


async def poll_once(resources: Resources) -> float | None:
    """Take one batch of due timers; returns after how many seconds to look again, None to wait for the question."""
    due = await resources.database.run(lambda session: take_due_timers(session, limit=_BATCH))
    if due.taken:
        reach(CrashPoint.TIMERS_AFTER_TAKE)
    metrics.observe_all(metrics.timer_lateness_seconds, due.lateness_seconds)
    await tell_committed(resources, due.outbox_ids)
    if due.taken == _BATCH:
        return 0.0
    if due.next_at is None:
        return None
    rest = (due.next_at - resources.clock.now()).total_seconds()
    return max(_REST_SECONDS, rest) if rest < _HORIZON_SECONDS else None
