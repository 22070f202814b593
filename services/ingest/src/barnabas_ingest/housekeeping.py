"""The small periodic parts of ingest: its clock, a gauge, new queues, and outbox rows that no flush took along."""

from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import every
from barnabas.runtime.stop import Stop
from barnabas_ingest.resources import Resources

_CLOCK_SECONDS = 60.0
# A flush takes acknowledged rows along for free; when none has come for this long, they go by themselves.
_IDLE_SECONDS = 0.2


async def keep_clock(resources: Resources, stop: Stop) -> None:
    """Follow the database's clock."""
    await every(_CLOCK_SECONDS, resources.clock.synchronise, stop)


async def forget_told_rows(resources: Resources, stop: Stop) -> None:
    """Delete outbox rows that the broker has acknowledged, while nothing else does."""

    async def forget() -> None:
        await resources.teller.wait()
        await forget_once(resources)

    stop.on_set(resources.teller.wake)
    metrics.ingest_queue_bytes.set_function(lambda: resources.budget.used)
    await every(_IDLE_SECONDS, forget, stop)
    await forget_once(resources, even_if_busy=True)


async def forget_once(resources: Resources, *, even_if_busy: bool = False) -> int:
    """Delete them now, unless a flush will; returns how many."""
    # The next head of an ordering key, or a redriven job, may be of a queue that another process has made.
    await resources.queues.read_missed()
    idle = resources.clock.monotonic() - resources.plain.flushed_at
    if idle < _IDLE_SECONDS and not even_if_busy:
        return 0
    with resources.teller.deleting() as told:
        if told:
            reach(CrashPoint.INGEST_BEFORE_FORGET)
            await resources.database.execute("delete_outbox", told)
    return len(told)
