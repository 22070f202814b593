"""A million jobs in line for one slow worker: what it does to memory, to partitions, and to everybody else's wait.

The jobs hold their slots, so that the worker starts a few hundred a second and nearly all of them stay in line. They
are not worked off: the stack is thrown away afterwards.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.fairness_flood import QUIET, flood_order
from tests.bench.fairness_plan import FairnessPlan
from tests.bench.figures import Figure, once, percentiles
from tests.bench.starts import read_waits, stamp_order
from tests.bench.system import System
from tests.bench.tenants import make_tenants
from tests.bench.usage import rss_mb
from tests.support.eventually import eventually

_TENANTS = 10
_HOLD_SECONDS = 2.0
# The slowest pace of acceptance that is still worth a figure.
_JOBS_PER_SECOND_MIN = 2_000
_SAMPLE_SECONDS = 0.5
_SERVICES = ("worker", "ingest")
# What the library says when a consumer didn't ask for records in time, and was put out of its group.
_EVICTED = re.compile(r"max[._ ]?poll[._ ]?(interval )?exceeded|_max_poll_exceeded", re.IGNORECASE)


@dataclass(slots=True)
class _Peaks:
    """The largest resident set of each service so far."""

    mb: dict[str, float] = field(default_factory=dict)


async def measure(system: System, plan: FairnessPlan) -> list[Figure]:
    """Peaks of memory, rebalances, pauses, and quiet tenants' waits while it grows and while it stands."""
    noisy = await make_tenants(system, "backlog", _TENANTS)
    lost, pauses = await _lost(system), await _pauses(system)
    logged = len(system.stack.log("worker"))
    flood = flood_order(
        system,
        noisy,
        plan.backlog_jobs,
        hold_seconds=_HOLD_SECONDS,
        seconds=60 + plan.backlog_jobs / _JOBS_PER_SECOND_MIN,
    )
    async with _watched(system) as peaks:
        growing = asyncio.create_task(system.run_http(flood))
        try:
            while_growing = await _quiet_waits(system, plan.backlog_seconds)
        finally:
            seen = await growing
        while_standing = await _quiet_waits(system, plan.backlog_seconds)
    left = seen.accepted - await system.rows(noisy)
    oldest = await system.database.fetchval(
        "SELECT extract(epoch FROM clock_timestamp() - min(uuid_extract_timestamp(job_id)))::float8 FROM jobs"
        " WHERE tenant_id = ANY ($1::uuid[]) AND state <> 3",
        [tenant.id for tenant in noisy],
    )
    evictions = await _lost(system) - lost + len(_EVICTED.findall(system.stack.log("worker")[logged:]))
    pauses = await _pauses(system) - pauses
    return [
        once("backlog.left", f"in line, of {seen.accepted:,} accepted", "jobs", float(left), more_is_better=True),
        once(
            "backlog.accepted",
            "accepted while the backlog grew",
            "jobs/s",
            seen.accepted / seen.seconds,
            more_is_better=True,
        ),
        once("backlog.refused", "batches refused for overload, and sent again", "batches", float(seen.refused)),
        *[
            once(f"backlog.rss.{name}", f"resident memory beside the backlog, {name}, at the most", "MiB", peak)
            for name, peak in peaks.mb.items()
        ],
        once("backlog.evictions", "the worker's partitions lost, or its polls late", "times", evictions),
        once("backlog.pauses", "pauses of the worker's partitions", "times", pauses),
        once("backlog.oldest", "age of the oldest job in line", "s", oldest),
        *percentiles("backlog.growing.wait", "quiet tenants while it grows, accept to handler start", [while_growing]),
        *percentiles(
            "backlog.standing.wait", "quiet tenants while it stands, accept to handler start", [while_standing]
        ),
    ]


async def _quiet_waits(system: System, seconds: float) -> list[float]:
    quiet = await make_tenants(system, "quiet", QUIET)
    seen = await system.run_http(stamp_order(system, quiet, rate=QUIET, seconds=seconds))
    await eventually(lambda: system.rows(quiet), until=lambda rows: rows == seen.accepted, timeout=60.0)
    return [wait.seconds for wait in await read_waits(system, quiet)]


async def _lost(system: System) -> float:
    """How often partitions were taken from the worker without its consent, or its consumer was built anew."""
    return sum(
        [
            await system.metric("worker", "barnabas_rebalances_total", 'group="barnabas.worker"', f'event="{event}"')
            for event in ("lost", "rebuilt")
        ]
    )


async def _pauses(system: System) -> float:
    return await system.metric("worker", "barnabas_consumer_pauses_total", 'group="barnabas.worker"')


@asynccontextmanager
async def _watched(system: System) -> AsyncIterator[_Peaks]:
    """Resident memory of worker and ingest, looked at twice a second."""
    peaks = _Peaks()
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            for name in _SERVICES:
                peaks.mb[name] = max(peaks.mb.get(name, 0.0), await asyncio.to_thread(rss_mb, system.stack, name))
            try:
                async with asyncio.timeout(_SAMPLE_SECONDS):
                    await done.wait()
            except TimeoutError:
                continue

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        try:
            yield peaks
        finally:
            done.set()
