"""The fairness suite: who waits for whom, what limits cost, and whether they hold.

Scenarios share a stack where they leave nothing behind; those that kill, or that leave a long line, have their own.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

from tests.bench import (
    fairness_backlog,
    fairness_exact,
    fairness_flood,
    fairness_limits,
    fairness_partition,
    fairness_priorities,
    fairness_rates,
    fairness_shares,
)
from tests.bench.fairness_plan import FairnessPlan
from tests.bench.figures import Figure
from tests.bench.system import System

Scenario = Callable[[System, FairnessPlan], Awaitable[list[Figure]]]

SCENARIOS: dict[str, Scenario] = {
    "flood": fairness_flood.measure,
    "shares": fairness_shares.measure,
    "priorities": fairness_priorities.measure,
    "sleepers": fairness_rates.measure_sleepers,
    "io": fairness_rates.measure_io,
    "cost": fairness_limits.measure,
    # Leaves jobs in line, so it is the last of those that share a stack.
    "partition": fairness_partition.measure,
    "exact": fairness_exact.measure,
    "backlog": fairness_backlog.measure,
}
"""What can be asked for, in the order in which it runs."""

ALONE = {"exact": fairness_exact.WORKERS, "backlog": 1}
"""Scenarios with a stack of their own, and how many workers it has."""


async def measure(system: System, *, only: Collection[str], plan: FairnessPlan) -> AsyncIterator[Sequence[Figure]]:
    """Scenario by scenario, so that a run can be watched."""
    # A fresh group gives its workers their partitions some seconds after they are ready.
    await fairness_flood.warm_up(system)
    for name, scenario in SCENARIOS.items():
        if name in only:
            yield await scenario(system, plan)
