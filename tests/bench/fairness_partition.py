"""A tenant that may run four jobs, of 30 s each, floods the partition that its neighbours' records travel on, too.

Kafka's order within a partition would have every neighbour wait for it. Its jobs stay in line when the scenario ends:
at four at a time they would take hours.
"""

import asyncio
from uuid import UUID

from confluent_kafka import murmur2

from barnabas.contract.telling import tenant_key
from barnabas.contract.topics import WORK_PARTITIONS
from tests.bench.fairness_flood import flood_order
from tests.bench.fairness_plan import FairnessPlan
from tests.bench.figures import Figure, once, percentiles, split
from tests.bench.starts import read_waits, stamp_order
from tests.bench.system import System
from tests.bench.tenants import make_tenants, set_limits
from tests.support.eventually import eventually

_NEIGHBOURS = 10
_RATE = 20.0
_ALLOWED = 4
_JOB_SECONDS = 30.0
_WINDOWS = 3
_PARTITION = 7


def _is_here(tenant_id: UUID) -> bool:
    return murmur2(tenant_key(tenant_id), WORK_PARTITIONS) == _PARTITION


async def measure(system: System, plan: FairnessPlan) -> list[Figure]:
    """The neighbours' waits, from acceptance to the handler's first line."""
    (limited,) = await make_tenants(system, "limited", 1, where=_is_here)
    neighbours = await make_tenants(system, "neighbour", _NEIGHBOURS, where=_is_here)
    await set_limits(system, limited, concurrency=_ALLOWED)
    since = await asyncio.to_thread(system.ended.count)
    flood, seen = await asyncio.gather(
        system.run_http(
            flood_order(system, [limited], plan.partition_jobs, job_type="hold", hold_seconds=_JOB_SECONDS)
        ),
        system.run_http(stamp_order(system, neighbours, rate=_RATE, seconds=plan.quiet_seconds)),
    )
    await eventually(lambda: system.rows(neighbours), until=lambda rows: rows == seen.accepted, timeout=60.0)
    ended = await asyncio.to_thread(system.ended.count) - since
    waits = [(wait.accepted, wait.seconds) for wait in await read_waits(system, neighbours)]
    # Its jobs may have come after all of theirs; the most that is waited for is what it is allowed.
    running = await eventually(
        lambda: system.database.fetchval(
            "SELECT count(*) FROM jobs WHERE tenant_id = $1::uuid AND state = 3", limited.id
        ),
        until=lambda count: count >= _ALLOWED,
    )
    return [
        *percentiles(
            "partition.wait",
            f"neighbours on the partition that a tenant with {_ALLOWED} places floods, accept to handler start",
            split(waits, windows=_WINDOWS),
        ),
        once("partition.running", "jobs of that tenant that run at the end", "jobs", float(running)),
        once(
            "partition.left",
            "and that are in line",
            "jobs",
            float(flood.accepted - (ended - seen.accepted) - running),
        ),
    ]
