"""The leader's number of workers: from Kafka's offsets and what Postgres knows, without what no worker could run."""

from uuid import UUID

import pytest

from barnabas.kafka.flow import Flow
from barnabas.postgres.measures import Workers, measure_workers
from barnabas.runtime.metrics import REGISTRY
from barnabas_retry_scheduler.measure import forget_measures
from barnabas_retry_scheduler.resources import Resources, open_resources
from barnabas_retry_scheduler.scale_workers import Scaling, scale_workers_once
from tests.integration.retry_scheduler.conftest import settings_for
from tests.support.world import World, new_id


async def put_aside(world: World, tenant_id: UUID, count: int) -> None:
    """Jobs that no look-ahead had room for."""
    await world.superuser.execute("INSERT INTO backlogs (tenant_id, queue_id) VALUES ($1, 0)", tenant_id)
    await world.superuser.executemany(
        "INSERT INTO waiting (tenant_id, kind, line, precedence, job_id) VALUES ($1, 4, 0, 2, $2)",
        [(tenant_id, new_id()) for _ in range(count)],
    )


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_only_live_workers_and_jobs_that_could_start_are_counted(world: World) -> None:
    await world.worker("echo")
    await world.worker("echo")
    await world.worker("echo", lease_seconds=-1.0)
    await put_aside(world, await world.tenant(), 30)
    limited, full = await world.tenant(running_at_most=5), await world.tenant(running_at_most=5)
    await put_aside(world, limited, 30)
    await put_aside(world, full, 30)
    await world.superuser.execute("UPDATE gates SET used = 3 WHERE tenant_id = $1", limited)
    await world.superuser.execute("UPDATE gates SET used = 5 WHERE tenant_id = $1", full)

    async with world.engine.session() as session:
        assert await measure_workers(session) == Workers(live=2, waiting=32)


async def test_jobs_parked_at_a_limit_ask_for_nobody(world: World) -> None:
    tenant_id = await world.tenant(running_at_most=1)
    await world.superuser.executemany(
        "INSERT INTO waiting (tenant_id, kind, line, precedence, job_id) VALUES ($1, $2, 0, 2, $3)",
        [(tenant_id, kind, new_id()) for kind in (1, 2, 3) for _ in range(100)],
    )

    async with world.engine.session() as session:
        assert await measure_workers(session) == Workers(live=0, waiting=0)


async def test_a_new_leader_begins_with_the_workers_that_there_are_and_raises_for_a_backlog(
    world: World, scheduler: Resources
) -> None:
    for _ in range(2):
        await world.worker("echo")
    scaling, told = Scaling(), []
    for number in range(4):
        seen = Flow(waiting=20_000 * number, read=100 * number, came_out=100 * number)
        told.append(await scale_workers_once(scheduler, scaling, seen, now=5.0 * number))

    assert told[0] == 2
    assert told[-1] > 4
    assert shown("barnabas_workers") == 2
    assert shown("barnabas_workers_desired") == told[-1]
    assert shown("barnabas_backlog_jobs") == 60_000
    assert shown("barnabas_workers_reason", reason="arrivals") == 1 or shown(
        "barnabas_workers_reason", reason="warming"
    )


async def test_what_is_read_and_put_aside_still_waits(world: World, scheduler: Resources) -> None:
    await world.worker("echo")
    scaling = Scaling()
    await scale_workers_once(scheduler, scaling, Flow(waiting=2_000, read=0, came_out=0), now=0.0)
    await put_aside(world, await world.tenant(), 2_000)
    await scale_workers_once(scheduler, scaling, Flow(waiting=0, read=2_000, came_out=0), now=5.0)

    assert shown("barnabas_backlog_jobs") == 2_000


async def test_while_nothing_moves_postgres_is_left_alone_for_a_minute(world: World, scheduler: Resources) -> None:
    scaling, still = Scaling(), Flow(waiting=0, read=700, came_out=700)
    await scale_workers_once(scheduler, scaling, still, now=100.0)
    await world.worker("echo")
    await scale_workers_once(scheduler, scaling, still, now=155.0)
    idle = shown("barnabas_workers")
    await scale_workers_once(scheduler, scaling, still, now=165.0)

    assert (idle, shown("barnabas_workers")) == (0, 1)


async def test_whoever_stops_leading_shows_no_number(world: World, scheduler: Resources) -> None:
    await scale_workers_once(scheduler, Scaling(), Flow(0, 0, 0), now=0.0)
    before = shown("barnabas_workers_desired")
    forget_measures()

    assert before == 1
    assert shown("barnabas_workers_desired") == 0
    assert shown("barnabas_workers_reason", reason="adopted") is None


@pytest.mark.parametrize(("least", "most", "expected"), [(3, 5, 3), (1, 1, 1)])
async def test_the_settings_bound_the_number(world: World, least: int, most: int, expected: int) -> None:
    async with open_resources(settings_for(world, workers_min=least, workers_max=most)) as resources:
        assert await scale_workers_once(resources, Scaling(), Flow(0, 0, 0), now=0.0) == expected


def test_a_range_upside_down_is_refused_with_one_that_would_do(world: World) -> None:
    with pytest.raises(ValueError, match="BARNABAS_WORKERS_MAX=9 would do"):
        settings_for(world, workers_min=9, workers_max=3)
