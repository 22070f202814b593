"""What limits cost: 10,000 tenants that all have generous ones, against 10,000 that have none, in turns.

The limits are never met. What is paid for is that they are looked at: a gate locked and written for each tenant of a
claim, of a finish, and of a flush of submissions. Small batches, so that every one of those has many tenants in it.
"""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.fairness_plan import FairnessPlan
from tests.bench.figures import Figure, median, once
from tests.bench.load_http import HttpOrder
from tests.bench.system import Counts, System, Tenant
from tests.bench.tenants import make_gates, make_tenants
from tests.bench.usage import OURS, Usage, read_usage

_ROUNDS = 2
_BATCH = 20
_CONNECTIONS = 8
_OUTSTANDING = 4_000
_PAD_BYTES = 960
_PLENTY = 1_000_000


@dataclass(frozen=True, slots=True)
class _Round:
    pace: float
    """Jobs ended a second."""
    python: float
    """CPU of all our Python processes, microseconds a job."""
    postgres: float


async def measure(system: System, plan: FairnessPlan) -> list[Figure]:
    """Both paces, their ratio, and what a job takes more."""
    free = await make_tenants(system, "free", plan.limited_tenants)
    limited = await make_tenants(system, "limited", plan.limited_tenants)
    await make_gates(
        system,
        limited,
        [{"kind": 1, "allowed": _PLENTY, "starts_allowed": _PLENTY}, {"kind": 3, "starts_allowed": _PLENTY}],
    )
    without: list[_Round] = []
    within: list[_Round] = []
    for _ in range(_ROUNDS):
        without.append(await _round(system, free, seconds=plan.limited_seconds))
        within.append(await _round(system, limited, seconds=plan.limited_seconds))
    tenants = f"{plan.limited_tenants:,} tenants, batches of {_BATCH}"
    return [
        median(
            "limits.without", f"{tenants}, no limits", "jobs/s", [each.pace for each in without], more_is_better=True
        ),
        median(
            "limits.within",
            f"{tenants}, limits on running, starts and submissions",
            "jobs/s",
            [each.pace for each in within],
            more_is_better=True,
        ),
        once(
            "limits.ratio",
            "throughput with limits as a share of that without",
            "share",
            statistics.median(each.pace for each in within) / statistics.median(each.pace for each in without),
            more_is_better=True,
        ),
        *[
            once(
                f"limits.cpu_{name}",
                f"what limits add to the CPU of {about}",
                "µs/job",
                statistics.median(getattr(each, name) for each in within)
                - statistics.median(getattr(each, name) for each in without),
            )
            for name, about in (("python", "all our Python processes"), ("postgres", "Postgres"))
        ],
    ]


async def _round(system: System, tenants: Sequence[Tenant], *, seconds: float) -> _Round:
    before = await system.counts()
    warm_up = seconds / 4
    order = HttpOrder(
        url=system.stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="echo",
        pad_bytes=_PAD_BYTES,
        connections=_CONNECTIONS,
        seconds=warm_up + seconds + 0.5,
        batch=_BATCH,
        outstanding=_OUTSTANDING,
        kafka=system.stack.told["kafka"],
    )
    rows = await system.rows(tenants)
    load = asyncio.create_task(system.run_http(order))
    try:
        while not load.done() and (await system.counts()).ended == before.ended:
            await asyncio.sleep(0.02)
        await asyncio.sleep(warm_up)
        first = await _look(system)
        await asyncio.sleep(seconds)
        last = await _look(system)
    finally:
        seen = await load
    await system.drained(tenants, seen.accepted, since=before.ended, rows=rows)
    jobs = max(1, last[1].ended - first[1].ended)
    spent = {kind: after - first[0].cpu_seconds[kind] for kind, after in last[0].cpu_seconds.items()}
    return _Round(
        pace=jobs / (last[1].at - first[1].at),
        python=1e6 * sum(spent[kind] for kind in OURS) / jobs,
        postgres=1e6 * spent["postgres"] / jobs,
    )


async def _look(system: System) -> tuple[Usage, Counts]:
    return await read_usage(system.stack, system.database), await system.counts()
