"""What each of eight tenants gets while all of them have work in line: the same, or what their plans say.

Counted are the starts from the moment when everything was in line to the one when the first tenant had nothing left.
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

from tests.bench.fairness_flood import flood_order
from tests.bench.fairness_gate import slots_taken
from tests.bench.fairness_plan import FairnessPlan
from tests.bench.figures import Figure, once
from tests.bench.starts import count_starts
from tests.bench.system import System, Tenant
from tests.bench.tenants import make_tenants, set_weight

_WEIGHTS = (1, 1, 2, 2, 3, 4, 5, 6)
# Who hands in more gets no more: of the equal ones the first has twice as much in line.
_LOADS = (2, 1, 1, 1, 1, 1, 1, 1)
_BATCH = 50
# A changed weight travels with a heartbeat, one a second.
_HEARTBEATS_SECONDS = 2.5


async def measure(system: System, plan: FairnessPlan) -> list[Figure]:
    """Jain's index at equal weights, and how far the worst share is from its weight."""
    equal = await make_tenants(system, "equal", len(_WEIGHTS))
    counts = await _starts(system, plan, equal, _LOADS)
    weighted = await make_tenants(system, "weighted", len(_WEIGHTS))
    for tenant, weight in zip(weighted, _WEIGHTS, strict=True):
        await set_weight(system, tenant, weight)
    await asyncio.sleep(_HEARTBEATS_SECONDS)
    shares = await _starts(system, plan, weighted, _WEIGHTS)
    return [
        once(
            "shares.jain",
            f"Jain's index of {len(equal)} tenants of equal weight, all saturated",
            "",
            jain(counts),
            more_is_better=True,
        ),
        once(
            "shares.deviation",
            f"weights {', '.join(map(str, _WEIGHTS))}: share furthest from its weight",
            "%",
            100 * deviation(shares, _WEIGHTS),
        ),
        once("shares.starts", "starts counted for that", "jobs", float(sum(shares)), more_is_better=True),
    ]


def jain(counts: Sequence[int]) -> float:
    """1 when all get the same, 1/n when one gets everything (Jain, Chiu, Hawe, 1984)."""
    return sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))


def deviation(counts: Sequence[int], weights: Sequence[int]) -> float:
    """The largest relative distance of a share from its weight's."""
    return max(
        abs(count / sum(counts) * sum(weights) / weight - 1) for count, weight in zip(counts, weights, strict=True)
    )


async def _starts(system: System, plan: FairnessPlan, tenants: Sequence[Tenant], loads: Sequence[int]) -> list[int]:
    """How many of each started while all had work; `loads` are the proportions of what each hands in."""
    since = await asyncio.to_thread(system.ended.count)
    keys = [tenant for tenant, load in zip(tenants, loads, strict=True) for _ in range(load)]
    rounds = max(1, plan.shares_jobs * len(tenants) // (_BATCH * len(keys)))
    order = flood_order(system, keys, rounds * _BATCH * len(keys), hold_seconds=plan.hold_seconds, batch=_BATCH)
    async with slots_taken(system) as taken:
        seen = await system.run_http(order)
        begin = time.time()
    await system.drained([*tenants, taken.tenant], seen.accepted + taken.jobs, since=since)
    end = min(last for _, last in (await count_starts(system, tenants, since=begin)).values())
    counted = await count_starts(system, tenants, since=begin, until=end)
    return [counted[UUID(tenant.id)][0] for tenant in tenants]
