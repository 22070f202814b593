"""Two rates that follow from a setting, if nothing is lost between one job and the next.

2 s handlers at concurrency 5 are 150 jobs a minute. 5 ms handlers of one tenant, so one partition, on one worker: as
many as fit into its slots.
"""

import asyncio

from tests.bench.fairness_flood import flood_order
from tests.bench.fairness_plan import FairnessPlan
from tests.bench.figures import Figure, once
from tests.bench.system import System
from tests.bench.tenants import make_tenants, set_limits

_SLEEP_SECONDS = 2.0
_CONCURRENCY = 5
_IO_BATCH = 500


async def measure_sleepers(system: System, plan: FairnessPlan) -> list[Figure]:
    """Jobs a minute, over all starts but the first five, which find the places free."""
    tenants = await make_tenants(system, "sleeper", 1)
    await set_limits(system, tenants[0], concurrency=_CONCURRENCY)
    since = await asyncio.to_thread(system.ended.count)
    seen = await system.run_http(
        flood_order(
            system,
            tenants,
            plan.sleeper_jobs,
            job_type="hold",
            hold_seconds=_SLEEP_SECONDS,
            batch=plan.sleeper_jobs,
        )
    )
    await system.drained(tenants, seen.accepted, since=since)
    starts = [
        row["at"]
        for row in await system.database.fetch(
            "SELECT extract(epoch FROM started_at)::float8 AS at FROM job_results"
            " WHERE tenant_id = $1::uuid ORDER BY started_at",
            tenants[0].id,
        )
    ]
    return [
        once(
            "sleepers.rate",
            f"{_SLEEP_SECONDS:g} s handlers at concurrency {_CONCURRENCY}",
            "jobs/min",
            60 * (len(starts) - _CONCURRENCY) / (starts[-1] - starts[0]),
            more_is_better=True,
        )
    ]


async def measure_io(system: System, plan: FairnessPlan) -> list[Figure]:
    """A backlog of them: how many were in flight at the most, and how many ended in a second."""
    tenants = await make_tenants(system, "io", 1)
    since = await asyncio.to_thread(system.ended.count)
    seen = await system.run_http(flood_order(system, tenants, plan.io_jobs, job_type="io", batch=_IO_BATCH))
    await system.drained(tenants, seen.accepted, since=since)
    row = await system.database.fetchrow(
        "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 AS seconds,"
        " max((convert_from(result, 'UTF8')::json ->> 'running')::integer) AS running"
        " FROM job_results WHERE tenant_id = $1::uuid",
        tenants[0].id,
    )
    about = "5 ms handlers, one worker process, one partition"
    return [
        once("io.in_flight", f"{about}: in flight at the most", "jobs", float(row["running"]), more_is_better=True),
        once(
            "io.rate",
            f"{about}, while they are submitted too",
            "jobs/s",
            seen.accepted / row["seconds"],
            more_is_better=True,
        ),
    ]
