"""The benchmark's harness in a few seconds: it works, and what it counts adds up. Speed is not asserted here."""

import pytest

from tests.bench.figures import Figure
from tests.bench.measures import MOMENT, NAMES, measure
from tests.bench.system import System, open_system
from tests.support.stack import Stack

_EXPECTED = {
    "idle.accept_webhook.p99",
    "end_to_end.http_batch",
    "end_to_end.kafka",
    "half.accept_done.p50",
    "singles.rate",
    "burst.http_batch",
    "burst.kafka",
    "limit.postgres",
    "limit.kafka_produce",
    "limit.kafka_consume",
}

_NEVER_ZERO = ("burst.http_batch", "burst.kafka", "singles.rate", "limit.postgres", "limit.kafka_produce")


async def figures_of(system: System, *names: str) -> dict[str, Figure]:
    return {figure.name: figure async for part in measure(system, only=names, plan=MOMENT) for figure in part}


@pytest.mark.timeout(180)
async def test_every_measure_of_the_benchmark_ends_with_counts_that_add_up(stack: Stack) -> None:
    # Each measure itself compares what was accepted with the rows in Postgres and the events on the results topic.
    async with open_system(stack, job_type="echo") as system:
        figures = await figures_of(system, *NAMES)

    assert set(figures) >= _EXPECTED
    # A window of half a second may see nothing; what is counted over a whole measure may not.
    assert [name for name in _NEVER_ZERO if figures[name].value <= 0] == []
    assert figures["idle.accept_webhook.p50"].value <= figures["idle.accept_webhook.p99"].value
    assert figures["ratio.end_to_end.kafka"].value < 1
