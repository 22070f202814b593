"""The four levels against each other: a critical job beside a saturated low level, and each level's share of starts.

Levels share as 25, 25, 30 and 20 while all have work; with fewer of them in line, these share in the same proportions.
"""

import asyncio
import time
from collections.abc import Sequence

from barnabas.contract.topics import PRIORITY_NAMES
from tests.bench.fairness_flood import flood_order
from tests.bench.fairness_gate import slots_taken
from tests.bench.fairness_plan import FairnessPlan, TooSmallError
from tests.bench.figures import Figure, once, percentiles, split
from tests.bench.starts import count_starts, read_span, read_waits, stamp_order
from tests.bench.system import System
from tests.bench.tenants import make_tenants

_SHARES = dict(zip(PRIORITY_NAMES, (20, 30, 25, 25), strict=True))
# What all the shares are multiples of.
_PART = 5
_TENANTS = 4
_RATE = 20.0
_WINDOWS = 3
_BATCH = 50


async def measure(system: System, plan: FairnessPlan) -> list[Figure]:
    """The wait of critical jobs, and the shares of all levels and of the highest with the lowest."""
    figures = await _critical_beside_low(system, plan)
    every = await _starts(system, plan, PRIORITY_NAMES)
    two = await _starts(system, plan, ("low", "critical"))
    whole = sum(_SHARES.values())
    return [
        *figures,
        once(
            "priorities.deviation",
            "all four levels saturated: share furthest from 25, 25, 30, 20",
            "%",
            100 * max(abs(count / sum(every.values()) * whole / _SHARES[name] - 1) for name, count in every.items()),
        ),
        once(
            "priorities.low",
            "low's share of the starts, all four levels saturated",
            "%",
            100 * every["low"] / sum(every.values()),
            more_is_better=True,
        ),
        once(
            "priorities.low_of_two",
            "low's share of the starts, critical flooded, the other two idle",
            "%",
            100 * two["low"] / sum(two.values()),
            more_is_better=True,
        ),
    ]


async def _critical_beside_low(system: System, plan: FairnessPlan) -> list[Figure]:
    low = await make_tenants(system, "low", _TENANTS)
    urgent = await make_tenants(system, "critical", _TENANTS)
    since = await asyncio.to_thread(system.ended.count)
    flood = await system.run_http(
        flood_order(
            system,
            low,
            min(plan.flood_jobs, plan.priority_jobs),
            hold_seconds=plan.flood_hold_seconds,
            priorities=["low"],
            batch=_BATCH,
        )
    )
    seen = await system.run_http(
        stamp_order(system, urgent, rate=_RATE, seconds=plan.quiet_seconds / 2, priority="critical")
    )
    await system.drained([*low, *urgent], flood.accepted + seen.accepted, since=since)
    _, last = await read_span(system, low)
    waits = [(wait.accepted, wait.seconds) for wait in await read_waits(system, urgent) if wait.accepted <= last]
    if not waits:
        raise TooSmallError("the low level was done before a critical job came")
    return percentiles(
        "priorities.critical_wait",
        "critical jobs beside a saturated low level, accept to handler start",
        split(waits, windows=_WINDOWS),
    )


async def _starts(system: System, plan: FairnessPlan, names: Sequence[str]) -> dict[str, int]:
    """How many of each of these levels started while all of them had work."""
    tenants = await make_tenants(system, "levels", _TENANTS)
    since = await asyncio.to_thread(system.ended.count)
    # In proportion to the shares, so that all run out at about the same time, and mixed.
    parts = {name: _SHARES[name] // _PART for name in names}
    levels = [name for part in range(max(parts.values())) for name in names if part < parts[name]]
    rounds = len(levels) * len(tenants)
    batch = max(1, min(_BATCH, plan.priority_jobs // (2 * rounds)))
    jobs = plan.priority_jobs // (rounds * batch) * rounds * batch
    async with slots_taken(system) as taken:
        seen = await system.run_http(
            flood_order(system, tenants, jobs, hold_seconds=plan.hold_seconds, priorities=levels, batch=batch)
        )
        begin = time.time()
    await system.drained([*tenants, taken.tenant], seen.accepted + taken.jobs, since=since)
    ends = await count_starts(system, tenants, since=begin, by="priority")
    end = min(last for _, last in ends.values())
    counted = await count_starts(system, tenants, since=begin, until=end, by="priority")
    return {PRIORITY_NAMES[priority]: count for priority, (count, _) in counted.items()}
