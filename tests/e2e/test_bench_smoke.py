"""The benchmark's harness in a few seconds: it works, and what it counts adds up. Speed is not asserted here."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.bench import fairness, fairness_plan, measures, scale
from tests.bench.fairness_plan import FairnessPlan, TooSmallError
from tests.bench.figures import Figure
from tests.bench.system import System, open_system
from tests.support.stack import open_stack

pytestmark = pytest.mark.timeout(900)

_EXPECTED = {
    "idle.queries",
    "idle.call_start.p99",
    "idle.accept_webhook.p99",
    "end_to_end.http_batch",
    "end_to_end.kafka",
    "wal.http_small",
    "half.accept_done.p50",
    "singles.rate",
    "burst.http_batch",
    "burst.kafka",
    "limit.postgres",
    "limit.kafka_produce",
    "limit.kafka_consume",
}

_NEVER_ZERO = ("burst.http_batch", "burst.kafka", "singles.rate", "limit.postgres", "limit.kafka_produce")

# Few slots, so that a few hundred jobs keep them all busy.
_SLOTS = 16


@pytest.fixture(scope="module")
async def system() -> AsyncIterator[System]:
    """A system whose worker has the benchmark's handlers."""
    async with (
        open_stack(app="tests.bench.app:app", env={"BARNABAS_SLOTS": str(_SLOTS)}) as stack,
        open_system(stack) as opened,
    ):
        yield opened


async def fairness_of(system: System, *names: str, plan: FairnessPlan = fairness_plan.MOMENT) -> dict[str, Figure]:
    parts = fairness.measure(system, only=names, plan=plan)
    return {figure.name: figure async for part in parts for figure in part}


async def grown(system: System, name: str) -> dict[str, Figure]:
    """A scenario with as much in line as it takes to outlast the start of a process, on however busy a machine."""
    plan = fairness_plan.MOMENT
    for _ in range(2):
        try:
            return await fairness_of(system, name, plan=plan)
        except TooSmallError:
            plan = replace(plan, flood_jobs=4 * plan.flood_jobs, priority_jobs=4 * plan.priority_jobs)
    return await fairness_of(system, name, plan=plan)


async def test_every_measure_of_the_benchmark_ends_with_counts_that_add_up(system: System) -> None:
    # Each measure itself compares what was accepted with the rows in Postgres and the events on the results topic.
    parts = measures.measure(system, only=measures.NAMES, plan=measures.MOMENT)
    figures = {figure.name: figure async for part in parts for figure in part}

    assert set(figures) >= _EXPECTED
    # A window of half a second may see nothing; what is counted over a whole measure may not.
    assert [name for name in _NEVER_ZERO if figures[name].value <= 0] == []
    assert figures["idle.accept_webhook.p50"].value <= figures["idle.accept_webhook.p99"].value
    ratio = figures["end_to_end.kafka"].value / figures["limit.postgres"].value
    assert figures["ratio.end_to_end.kafka"].value == ratio


async def test_tenants_and_levels_that_are_saturated_get_their_shares(system: System) -> None:
    figures = await fairness_of(system, "shares") | await grown(system, "priorities")

    assert figures["shares.jain"].value >= 0.95
    # A thousand starts, some of them before all was read, are no sample for five per cent; without weights the
    # lightest would be 200 % off.
    assert figures["shares.deviation"].value <= 120
    assert figures["priorities.low"].value >= 15


async def test_limits_hold_and_nobody_waits_behind_a_flood(system: System) -> None:
    figures = await grown(system, "flood")
    figures |= await fairness_of(system, "sleepers", "io", "cost", "exact", "partition")

    assert figures["exact.violations"].value == 0
    assert figures["sleepers.rate"].value <= 153
    assert 1 <= figures["io.in_flight"].value <= _SLOTS
    assert figures["partition.running"].value == 4
    assert figures["limits.ratio"].value > 0


async def test_a_backlog_and_finished_rows_are_made_and_measured(system: System) -> None:
    parts = scale.measure(system, only=scale.NAMES, plan=scale.MOMENT)
    scaled = {figure.name: figure async for part in parts for figure in part}
    backlog = await fairness_of(system, "backlog")

    most = max(scale.MOMENT.rows)
    assert scaled[f"scale.rows.{most}"].value >= most
    assert scaled["scale.list_ratio"].value > 0
    assert backlog["backlog.left"].value > 0
    assert backlog["backlog.rss.worker"].value > 0
