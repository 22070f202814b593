"""Redrives at a rate: durable due times, spread over all calls of a tenant."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from barnabas.postgres.redrives import redrive_delivery, reserve_redrives
from barnabas.postgres.verifying import verify
from tests.integration.ingest.support import Caller, RunningIngest
from tests.integration.ingest.test_reading import dead_letter
from tests.support.world import World, new_id


async def dead_letters(tenant: Caller, world: World, count: int, **fields: Any) -> list[str]:
    """So many jobs that failed for good."""
    ids = [await tenant.submit(number, **fields) for number in range(count)]
    for job_id in ids:
        await dead_letter(world, tenant.tenant_id, job_id)
    return ids


async def redrive(tenant: Caller, ids: list[str], **fields: Any) -> dict[str, Any]:
    reply = await tenant.post("/v1/dlq/redrive", {"filter": {"kind": "jobs", "ids": ids}, **fields})
    assert reply.status == 200, reply.body
    return dict(reply.body)


async def due_times(tenant: Caller, world: World) -> list[datetime | None]:
    """When the redriven jobs of a tenant may run, in the order of their making."""
    rows = await world.superuser.fetch(
        "SELECT job.due_at FROM jobs AS job WHERE job.tenant_id = $1 ORDER BY job.job_id", tenant.tenant_id
    )
    return [row["due_at"] for row in rows]


async def test_redrives_at_a_rate_are_spread_over_calls_and_the_first_comes_at_once(
    tenant: Caller, module_world: World
) -> None:
    ids = await dead_letters(tenant, module_world, 5)
    before = await module_world.now()

    first = await redrive(tenant, ids[:3], rate=0.1)
    second = await redrive(tenant, ids[3:], rate=0.1)

    assert (first["matched"], first["done"], second["done"]) == (3, 3, 2)
    at_once, *later = await due_times(tenant, module_world)
    assert at_once is None
    # Ten seconds apart, whichever call asked for them.
    gaps = [(after - due).total_seconds() for due, after in pairwise(due for due in later if due is not None)]
    assert [round(gap, 3) for gap in gaps] == [10.0, 10.0, 10.0]
    assert all(due is not None and due >= before + timedelta(seconds=10) for due in later)
    assert datetime.fromisoformat(second["last_at"]) == later[-1]
    states = await module_world.states(tenant.tenant_id or UUID(int=0))
    assert states == {"failed": 5, "queued": 1, "scheduled": 4}


async def test_what_waits_for_its_place_has_a_timer_and_nothing_is_left_behind(
    tenant: Caller, module_world: World
) -> None:
    ids = await dead_letters(tenant, module_world, 3)
    ids += await dead_letters(tenant, module_world, 1, ordering_key="one")
    behind = await tenant.submit(0, ordering_key="one")
    await redrive(tenant, ids, rate=0.01)

    checked = await verify(module_world.logins.engine_dsn, patience_seconds=0.0)

    mine = [one for each in checked for one in each.findings if one.tenant_id == tenant.tenant_id]
    timers = await module_world.superuser.fetch(
        "SELECT timer.due_at = job.due_at AS agree FROM timers AS timer"
        " JOIN jobs AS job ON job.tenant_id = timer.tenant_id AND job.job_id = timer.ref_id"
        " WHERE timer.tenant_id = $1",
        tenant.tenant_id,
    )
    assert mine == []
    # The first needs none. The one with the turn of its line keeps it while it waits.
    assert [row["agree"] for row in timers] == [True, True, True]
    assert (await tenant.get(f"/v1/jobs/{behind}")).body["status"] == "blocked"


async def test_a_rate_that_makes_no_sense_is_refused_and_nothing_is_sent(tenant: Caller, module_world: World) -> None:
    ids = await dead_letters(tenant, module_world, 1)

    for rate in (0, -1, 100_000, "fast"):
        reply = await tenant.post("/v1/dlq/redrive", {"filter": {"kind": "jobs", "ids": ids}, "rate": rate})
        assert reply.status == 422

    assert await module_world.states(tenant.tenant_id or UUID(int=0)) == {"failed": 1}


async def test_one_tenants_rate_is_not_anothers(ingest: RunningIngest, module_world: World) -> None:
    one, other = await ingest.tenant(), await ingest.tenant()
    ids, others = await dead_letters(one, module_world, 3), await dead_letters(other, module_world, 1)

    await redrive(one, ids, rate=0.01)
    await redrive(other, others, rate=0.01)

    assert await module_world.states(other.tenant_id or UUID(int=0)) == {"failed": 1, "queued": 1}


async def test_a_delivery_at_a_rate_waits_for_its_timer(tenant: Caller, module_world: World) -> None:
    tenant_id, event_id, endpoint_id, delivery_id = tenant.tenant_id, new_id(), new_id(), new_id()
    assert tenant_id is not None
    superuser = module_world.superuser
    await superuser.execute(
        "INSERT INTO endpoints (tenant_id, endpoint_id, url) VALUES ($1, $2, 'https://example.com')",
        tenant_id,
        endpoint_id,
    )
    await superuser.execute(
        "INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, state, fence, attempt)"
        " VALUES ($1, $2, $3, $4, $2, 5, 3, 3)",
        tenant_id,
        event_id,
        endpoint_id,
        delivery_id,
    )
    await superuser.execute(
        "INSERT INTO dead_letters (tenant_id, kind, ref, reason) VALUES ($1, 2, $2, 'used_up')", tenant_id, delivery_id
    )

    async with module_world.engine.session() as session:
        _, due_at = await reserve_redrives(session, tenant_id, "deliveries", count=2, rate=0.01)
        done = await redrive_delivery(session, tenant_id, delivery_id, due_at=due_at)

    row = await superuser.fetchrow(
        "SELECT d.state, d.due_at, timer.due_at AS timer_at, timer.fence FROM deliveries AS d"
        " JOIN timers AS timer ON timer.tenant_id = d.tenant_id AND timer.ref_id = d.event_id"
        " AND timer.endpoint_id = d.endpoint_id WHERE d.tenant_id = $1",
        tenant_id,
    )
    assert (done.answer, done.outbox_id) == ("redriven", None)
    assert tuple(row) == (3, due_at, due_at, 3)
