"""Twenty quiet tenants at a job a second each: alone, and beside one tenant that has 100,000 jobs in line.

Two floods. Jobs that hold their slot for a while leave the CPU idle, so a wait there is a turn that was not given.
`echo` jobs take all the CPU there is, and are worked off while they arrive. What was accepted before the last of them
had come is a figure of its own: until then they come in at twice the rate at which the machine can run them.
"""

import asyncio
from collections.abc import Sequence

from tests.bench.fairness_plan import FairnessPlan, TooSmallError
from tests.bench.figures import Figure, once, percentile, percentiles, split
from tests.bench.load_http import HttpOrder
from tests.bench.starts import Wait, read_span, read_waits, stamp_order
from tests.bench.system import System, Tenant
from tests.bench.tenants import make_tenants
from tests.support.eventually import eventually

QUIET = 20
_WINDOWS = 3
_BATCH = 500
_CONNECTIONS = 4
_PAD_BYTES = 960
# What a load process may take to start on a busy machine.
_GENERATOR_SECONDS = 4.0


async def measure(system: System, plan: FairnessPlan) -> list[Figure]:
    """Waits of the quiet tenants, from acceptance to the handler's first line."""
    alone = await _alone(system, seconds=plan.quiet_seconds)
    figures = _figures("flood.alone", f"{QUIET} quiet tenants alone, accept to handler start", alone)
    base = percentile([wait.seconds for wait in alone], 0.99)
    for name, job_type, about in (
        ("hold", "vary", f"jobs of {plan.flood_hold_seconds:g} s"),
        ("echo", "echo", "echo jobs"),
    ):
        arriving, beside = await _beside_flood(system, plan, job_type)
        if arriving:
            figures += _figures(
                f"flood.{name}.arriving", f"the same while those {plan.flood_jobs:,} {about} arrive", arriving
            )
        figures += [
            *_figures(f"flood.{name}", f"the same beside a tenant with {plan.flood_jobs:,} {about} in line", beside),
            once(
                f"flood.{name}.ratio",
                f"and as a multiple of alone, p99, {about}",
                "x",
                percentile([wait.seconds for wait in beside], 0.99) / base,
            ),
        ]
    return figures


def _figures(name: str, about: str, waits: Sequence[Wait]) -> list[Figure]:
    """How long they waited, and where: before its claim, or between that and the handler's first line."""
    until_claim = [(wait.accepted, wait.claimed - wait.accepted) for wait in waits]
    return [
        *percentiles(f"{name}.wait", about, split([(wait.accepted, wait.seconds) for wait in waits], windows=_WINDOWS)),
        *percentiles(f"{name}.claim", f"{about}: until the claim", split(until_claim, windows=_WINDOWS)),
    ]


async def warm_up(system: System) -> None:
    """The first jobs of a process make connections and fill caches; nobody waits for those twice."""
    await _alone(system, seconds=1.0)


async def _alone(system: System, *, seconds: float) -> list[Wait]:
    quiet = await make_tenants(system, "quiet", QUIET)
    since = await asyncio.to_thread(system.ended.count)
    seen = await system.run_http(stamp_order(system, quiet, rate=QUIET, seconds=seconds))
    await system.drained(quiet, seen.accepted, since=since)
    return await read_waits(system, quiet)


async def _beside_flood(system: System, plan: FairnessPlan, job_type: str) -> tuple[list[Wait], list[Wait]]:
    """The quiet ones' waits while the flood arrives, and when all of it is in line."""
    quiet = await make_tenants(system, "quiet", QUIET)
    noisy = await make_tenants(system, "noisy", 1)
    since = await asyncio.to_thread(system.ended.count)
    flood = flood_order(system, noisy, plan.flood_jobs, job_type=job_type, hold_seconds=plan.flood_hold_seconds)
    if job_type == "vary":
        # All of it is in line before anybody is watched.
        jobs = (await system.run_http(flood)).accepted
        seen = await system.run_http(stamp_order(system, quiet, rate=QUIET, seconds=plan.quiet_seconds))
    else:
        # A flood of echo jobs is worked off while it arrives: the quiet ones are there before it.
        seconds = plan.quiet_seconds + _GENERATOR_SECONDS
        async with asyncio.TaskGroup() as group:
            quietly = group.create_task(system.run_http(stamp_order(system, quiet, rate=QUIET, seconds=seconds)))
            await eventually(lambda: system.rows(quiet), until=lambda rows: rows > 0, timeout=60.0)
            jobs = (await system.run_http(flood)).accepted
        seen = quietly.result()
    await system.drained([*noisy, *quiet], jobs + seen.accepted, since=since, seconds=180.0)
    first, last = await read_span(system, noisy)
    all_in_line = await system.database.fetchval(
        "SELECT extract(epoch FROM max(uuid_extract_timestamp(job_id)))::float8 FROM job_results"
        " WHERE tenant_id = $1::uuid",
        noisy[0].id,
    )
    waits = await read_waits(system, quiet)
    arriving = [wait for wait in waits if first <= wait.accepted <= all_in_line]
    beside = [wait for wait in waits if max(first, all_in_line) < wait.accepted <= last]
    if not beside:
        raise TooSmallError("the flood was over before a quiet tenant came")
    return arriving, beside


def flood_order(
    system: System,
    tenants: Sequence[Tenant],
    jobs: int,
    *,
    job_type: str = "vary",
    hold_seconds: float = 0.0,
    priorities: Sequence[str] = ("medium",),
    batch: int = _BATCH,
    seconds: float = 120.0,
) -> HttpOrder:
    """So many jobs by batches, as fast as they are accepted, the tenants in turn."""
    return HttpOrder(
        url=system.stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type=job_type,
        pad_bytes=_PAD_BYTES,
        connections=_CONNECTIONS,
        seconds=seconds,
        batch=min(batch, jobs),
        jobs=jobs,
        hold_seconds=hold_seconds,
        priorities=list(priorities),
    )
