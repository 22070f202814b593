"""The small periodic parts of a worker: its clock, and the progress that handlers report."""

from barnabas.runtime.periodic import every
from barnabas.runtime.stop import Stop
from barnabas_worker.resources import Resources

_CLOCK_SECONDS = 60.0
_PROGRESS_SECONDS = 1.0


async def keep_clock(resources: Resources, stop: Stop) -> None:
    """Follow the database's clock."""
    await every(_CLOCK_SECONDS, resources.clock.synchronise, stop)


async def report_progress(resources: Resources, stop: Stop) -> None:
    """Write what handlers reported since the last second, in one statement."""
    await every(_PROGRESS_SECONDS, lambda: report_once(resources), stop)


async def report_once(resources: Resources) -> int:
    """Write the latest progress of each job that has a new one; returns how many had."""
    told = [
        (held.job.tenant_id, held.job.job_id, held.job.fence, progress)
        for held in resources.holdings.jobs.values()
        if not held.ended and (progress := held.context.take_progress()) is not None
    ]
    if not told:
        return 0
    told.sort(key=lambda one: (one[0], one[1]))
    await resources.database.execute(
        "write_progress",
        [one[0] for one in told],
        [one[1] for one in told],
        [one[2] for one in told],
        [one[3].percent for one in told],
        [one[3].message for one in told],
    )
    return len(told)
