"""The numbers that belong to no single process: outbox, dead letters, timers, deliveries, and every group's lag.

Measured by the leader alone, so that a sum over all processes is right; one that stops leading shows nothing any more.
"""

import time

from barnabas.contract import topics
from barnabas.kafka.lag import report_lag
from barnabas.postgres.measures import measure_urgent, measure_waiting
from barnabas.runtime import metrics
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import repeat
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.scale_workers import forget_scaling

_IDLE_SECONDS = 1.0
_MEASURE_SECONDS = 15.0
# Counts rows, a million of them in a tenth of a second.
_COUNT_SECONDS = 60.0

_DEAD_LETTER_KINDS = ("jobs", "deliveries")

GROUPS = {
    # And the topics of every other queue.
    "barnabas.worker": tuple(topic.name for topic in topics.JOBS),
    "barnabas.notifier": (topics.RESULTS.name, topics.DELIVERIES_RETRY.name),
    "barnabas.ingest": (topics.INTAKE.name,),
    # Delay tiers have lag by design.
    "barnabas.retry-scheduler": (topics.RETRIES.name,),
}
"""Who reads what."""


async def measure_postgres(resources: Resources, stop: Stop) -> None:
    """Measure what Postgres knows."""
    count_at = 0.0

    async def step() -> float:
        nonlocal count_at
        if not resources.leadership.is_held:
            return _IDLE_SECONDS
        await measure_urgent_once(resources)
        if time.monotonic() >= count_at:
            count_at = time.monotonic() + _COUNT_SECONDS
            await measure_waiting_once(resources)
        return _MEASURE_SECONDS

    await repeat(step, stop)


async def measure_kafka(resources: Resources, stop: Stop) -> None:
    """Measure how far each group is behind."""

    async def step() -> float:
        if not resources.leadership.is_held:
            return _IDLE_SECONDS
        await measure_lag_once(resources)
        return _MEASURE_SECONDS

    await repeat(step, stop)


async def measure_urgent_once(resources: Resources) -> None:
    """The outbox and the open dead letters."""
    async with resources.database.session() as session:
        urgent = await measure_urgent(session)
    now = resources.clock.now()
    metrics.outbox_rows.set(urgent.outbox_rows)
    metrics.outbox_oldest_seconds.set(urgent.outbox_oldest_seconds)
    for kind, count, oldest in zip(_DEAD_LETTER_KINDS, urgent.dead_letters, urgent.oldest_dead, strict=True):
        metrics.dead_letters.labels(kind).set(count)
        age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
        metrics.dead_letter_oldest_seconds.labels(kind).set(age)


async def measure_waiting_once(resources: Resources) -> None:
    """Timers, and deliveries that have not ended."""
    async with resources.database.session() as session:
        waiting = await measure_waiting(session)
    metrics.timers.set(waiting.timers)
    for state in ("pending", "parked", "running", "retrying"):
        metrics.deliveries_open.labels(state).set(getattr(waiting, state))


async def measure_lag_once(resources: Resources) -> None:
    """Every group's lag, in records and in seconds."""
    jobs = tuple(topic.name for topic in topics.topics_of_queues(resources.queues.names))
    for group, names in (GROUPS | {"barnabas.worker": jobs}).items():
        await report_lag(resources.admin, group, names)


def forget_measures() -> None:
    """Show nothing that somebody else measures now."""
    forget_scaling()
    metrics.outbox_rows.set(0)
    metrics.outbox_oldest_seconds.set(0)
    metrics.timers.set(0)
    metrics.reconciler_untaken.set(0)
    metrics.reconciler_oldest_seconds.set(0)
    metrics.reconciler_next_seconds.set(0)
    metrics.reconciler_walk_seconds.set(0)
    for gauge in (
        metrics.dead_letters,
        metrics.dead_letter_oldest_seconds,
        metrics.deliveries_open,
        metrics.jobs,
        metrics.oldest_waiting_seconds,
        metrics.consumer_lag_records,
        metrics.consumer_lag_seconds,
    ):
        gauge.clear()
