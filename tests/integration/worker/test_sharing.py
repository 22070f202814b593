"""Who starts when several wait: limits that a worker meets, floods too big for its memory, shares that change."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from uuid import UUID

from barnabas.runtime.service import serve
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.main import SERVICE
from barnabas_retry_scheduler.settings import RetrySchedulerSettings
from barnabas_worker.look_ahead import _ENTRY_BYTES
from tests.integration.worker.conftest import StartWorker
from tests.support import handlers
from tests.support.eventually import eventually
from tests.support.world import World


async def limit(
    world: World,
    tenant: UUID,
    *,
    job_type: str | None = None,
    allowed: int | None = None,
    starts: int | None = None,
    window: float = 60.0,
) -> None:
    """A gate, before anything runs."""
    type_id = 0 if job_type is None else await world.type_id(job_type)
    await world.superuser.execute(
        "INSERT INTO gates (tenant_id, kind, type_id, allowed, starts_allowed, window_seconds)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        tenant,
        1 if job_type is None else 2,
        type_id,
        allowed,
        starts,
        window,
    )


async def runs(world: World, tenant: UUID) -> list[tuple[float, float]]:
    """When each ended job of a tenant began and ended, in order of the beginnings."""
    rows = await world.superuser.fetch(
        "SELECT extract(epoch FROM started_at)::float8 AS began, extract(epoch FROM finished_at)::float8 AS ended"
        " FROM job_results WHERE tenant_id = $1 ORDER BY started_at",
        tenant,
    )
    return [(row["began"], row["ended"]) for row in rows]


async def succeeded(world: World, tenant: UUID) -> int:
    return (await world.states(tenant)).get("succeeded", 0)


@asynccontextmanager
async def scheduler(world: World) -> AsyncIterator[None]:
    """A retry-scheduler, whose sweeps open the windows."""
    stop = Stop()
    settings = RetrySchedulerSettings.model_validate({"kafka": world.kafka, "postgres": world.logins.engine_dsn})
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(SERVICE, settings, stop))
        try:
            yield
        finally:
            stop.set()


async def test_a_type_never_runs_more_often_at_once_than_its_limit(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    await limit(world, tenant, job_type="sleep", allowed=2)
    await start_worker()

    await world.submit(tenant, "sleep", b'{"seconds": 0.05}', count=12)
    await world.submit(tenant, "echo", count=12)
    await eventually(lambda: succeeded(world, tenant), until=lambda count: count == 24)

    sleeps = await world.superuser.fetch(
        "SELECT started_at, finished_at FROM job_results WHERE tenant_id = $1 AND type_id = $2 ORDER BY started_at",
        tenant,
        await world.type_id("sleep"),
    )
    for row in sleeps:
        assert sum(one["started_at"] <= row["started_at"] < one["finished_at"] for one in sleeps) <= 2
    gate = await world.superuser.fetchrow("SELECT used FROM gates WHERE tenant_id = $1", tenant)
    assert gate["used"] == 0
    assert await world.superuser.fetchval("SELECT count(*) FROM waiting") == 0


async def test_no_window_holds_more_starts_than_its_limit_and_the_next_opens_by_itself(
    world: World, start_worker: StartWorker
) -> None:
    tenant = await world.tenant()
    await limit(world, tenant, starts=5, window=0.8)
    await start_worker()

    async with scheduler(world):
        await world.submit(tenant, "echo", count=23)
        await eventually(lambda: succeeded(world, tenant), until=lambda count: count == 23)

    began = [one[0] for one in await runs(world, tenant)]
    for first, sixth in zip(began, began[5:], strict=False):
        assert sixth - first >= 0.8 - 0.001
    # A sweep comes each second; one whose call was lost would be called again after thirty.
    assert max(later - earlier for earlier, later in pairwise(began)) < 25


async def test_long_jobs_that_would_fill_a_worker_leave_a_slot_for_a_neighbour(
    world: World, start_worker: StartWorker
) -> None:
    flood, neighbour = await world.tenant(), await world.tenant()
    await world.type_id("sleep")
    worker = await start_worker(SLOTS="64", DRAIN_SECONDS="1")
    await world.submit(flood, "sleep", b'{"seconds": 600}', count=100)
    assert worker.resources is not None
    held = worker.resources.holdings.jobs
    await eventually(lambda: len(held), until=lambda count: count == 63, timeout=60)

    # One after the other: each finds the slot free again.
    for number in range(1, 6):
        await world.submit(neighbour, "echo", count=1)
        await eventually(lambda: succeeded(world, neighbour), until=lambda count: count == number, timeout=60)  # noqa: B023 - read at once

    # The last one's end is in Postgres a moment before it is forgotten here.
    await eventually(lambda: len(held), until=lambda count: count == 63)
    assert {one.job.tenant_id for one in held.values()} == {flood}


async def test_the_surplus_of_a_flood_waits_in_postgres_and_its_neighbour_passes(
    world: World, start_worker: StartWorker
) -> None:
    flood, neighbour = await world.tenant(), await world.tenant()
    await world.type_id("sleep")
    # Room for 163 records: the flood alone would fill it ten times over.
    worker = await start_worker(LOOK_AHEAD_BYTES="65536", SLOTS="4")

    floods = await world.insert(flood, "sleep", b'{"seconds": 0.01}', count=1_000)
    neighbours = await world.insert(neighbour, "echo")
    # Right after each other: the flood must not be half over when its neighbour comes.
    await world.publish(flood, floods)
    await world.publish(neighbour, neighbours)
    await world.superuser.execute("DELETE FROM outbox")
    await eventually(lambda: succeeded(world, neighbour), until=lambda count: count == 1)
    left = 1_000 - await succeeded(world, flood)
    parked = await world.superuser.fetchval("SELECT count(*) FROM waiting WHERE tenant_id = $1 AND kind = 4", flood)
    assert left > 200
    assert parked > 0

    # What is submitted while it waits goes behind it.
    await world.submit(flood, "echo", count=10)
    await eventually(lambda: succeeded(world, flood), until=lambda count: count == 1_010, timeout=120)
    assert worker.resources is not None
    await eventually(lambda: world.superuser.fetchval("SELECT count(*) FROM backlogs"), until=lambda count: count == 0)
    assert await world.superuser.fetchval("SELECT count(*) FROM waiting") == 0
    rows = await world.superuser.fetch(
        "SELECT count(*) AS n FROM job_results WHERE tenant_id = $1 AND fence > 1", flood
    )
    assert rows[0]["n"] == 0


async def test_shares_and_weights_that_are_changed_reach_a_running_worker(
    world: World, start_worker: StartWorker
) -> None:
    heavy, light = await world.tenant(), await world.tenant()
    worker = await start_worker(SLOTS="1")
    resources = worker.resources
    assert resources is not None
    blocker = await world.tenant()
    gate = handlers.gates[str(blocker)] = threading.Event()
    payload = json.dumps({"gate": str(blocker)}).encode()
    await world.submit(blocker, "block_thread", payload, timeout_ms=600_000)
    await eventually(lambda: len(resources.holdings.jobs) == 1)

    await world.superuser.execute("UPDATE tenants SET weight = 3 WHERE tenant_id = $1", heavy)
    await world.superuser.execute("UPDATE revisions SET revision = revision + 1 WHERE name = 'sharing'")
    for _ in range(2):
        await world.submit(light, "echo", count=20)
        await world.submit(heavy, "echo", count=20)
    # The slot is free again when the news and all of the records are there.
    ahead = resources.records._ahead
    await eventually(lambda: ahead._weights.get(heavy) == 3)
    await eventually(lambda: all(ahead.tenants().get(each) == 40 * _ENTRY_BYTES for each in (light, heavy)))
    gate.set()
    await world.until(light, succeeded=40)
    await world.until(heavy, succeeded=40)

    rows = await world.superuser.fetch(
        "SELECT tenant_id FROM job_results WHERE tenant_id = ANY($1::uuid[]) ORDER BY started_at, fence", [heavy, light]
    )
    first = [row["tenant_id"] for row in rows[:40]]
    assert first.count(heavy) >= 28
