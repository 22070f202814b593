"""Sweeps over what is parked, and leadership."""

import time
from datetime import datetime
from uuid import UUID

from barnabas.contract.topics import JOBS
from barnabas_retry_scheduler.resources import Resources, open_resources
from barnabas_retry_scheduler.sweep_waiting import sweep_gates_once, sweep_types_once
from tests.integration.retry_scheduler.conftest import ask_once, of_job, settings_for
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.turns import claim_jobs
from tests.support.world import World, new_id


async def park(world: World, *, running_at_most: int, count: int) -> tuple[UUID, list[UUID]]:
    """A tenant with a full gate; the jobs that wait at it, in their order."""
    tenant_id = await world.tenant(running_at_most=running_at_most)
    worker_id = await world.worker("echo")
    jobs = await world.submit(tenant_id, count=count)
    async with world.engine.session() as session:
        keys = [(tenant_id, job_id) for job_id in jobs]
        await claim_jobs(session, worker_id, new_id(), keys, {await world.type_id("echo"): 60_000})
    rows = await world.superuser.fetch("SELECT job_id FROM waiting WHERE tenant_id = $1 ORDER BY seq", tenant_id)
    return tenant_id, [row["job_id"] for row in rows]


async def woken(world: World, tenant_id: UUID) -> list[UUID]:
    rows = await world.superuser.fetch(
        "SELECT job_id FROM waiting WHERE tenant_id = $1 AND woken_at IS NOT NULL ORDER BY seq", tenant_id
    )
    return [row["job_id"] for row in rows]


async def test_a_full_gate_is_left_alone(world: World, scheduler: Resources) -> None:
    tenant_id, waiting = await park(world, running_at_most=2, count=5)
    await ask_once(scheduler)

    assert len(waiting) == 3
    assert not await scheduler.bells.gates.heard(0)
    assert await sweep_gates_once(scheduler) == 0
    assert await woken(world, tenant_id) == []


async def test_a_raised_limit_calls_as_many_as_have_room_in_their_order(world: World, scheduler: Resources) -> None:
    tenant_id, waiting = await park(world, running_at_most=2, count=7)
    await world.superuser.execute("UPDATE gates SET allowed = 4 WHERE tenant_id = $1", tenant_id)
    await ask_once(scheduler)
    assert await scheduler.bells.gates.heard(0)
    async with TopicReader(world.kafka, JOBS[1].name) as topic:
        assert await sweep_gates_once(scheduler) == 2
        for job_id in waiting[:2]:
            await topic.until(of_job(job_id))

    assert await woken(world, tenant_id) == waiting[:2]


async def test_those_who_were_just_called_are_not_called_again_and_nobody_behind_them(
    world: World, scheduler: Resources
) -> None:
    tenant_id, waiting = await park(world, running_at_most=2, count=7)
    await world.superuser.execute("UPDATE gates SET allowed = 4 WHERE tenant_id = $1", tenant_id)
    await sweep_gates_once(scheduler)
    await ask_once(scheduler)

    assert not await scheduler.bells.gates.heard(0)
    assert await sweep_gates_once(scheduler) == 0

    # Half a minute later their records count as lost.
    await world.superuser.execute("UPDATE waiting SET woken_at = woken_at - interval '31 s'")
    assert await sweep_gates_once(scheduler) == 2
    assert await woken(world, tenant_id) == waiting[:2]


async def test_a_limit_that_was_taken_away_lets_all_pass(world: World, scheduler: Resources) -> None:
    tenant_id, waiting = await park(world, running_at_most=1, count=6)
    await world.superuser.execute("UPDATE gates SET allowed = NULL WHERE tenant_id = $1", tenant_id)

    assert await sweep_gates_once(scheduler) == 5
    assert await woken(world, tenant_id) == waiting


async def test_a_job_without_a_handler_is_called_when_a_live_worker_announces_its_type(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.submit(tenant_id, job_type="novel")
    elsewhere = await world.worker("echo")
    async with world.engine.session() as session:
        await claim_jobs(session, elsewhere, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
    dead = await world.worker("novel")
    await world.superuser.execute("UPDATE workers SET lease_until = now() WHERE worker_id = $1", dead)
    await ask_once(scheduler)
    assert not await scheduler.bells.types.heard(0)
    assert await sweep_types_once(scheduler) == 0

    await world.worker("novel")
    await ask_once(scheduler)
    assert await scheduler.bells.types.heard(0)
    async with TopicReader(world.kafka, JOBS[1].name) as topic:
        assert await sweep_types_once(scheduler) == 1
        await topic.until(of_job(job_id))
    assert await sweep_types_once(scheduler) == 0


async def test_of_two_schedulers_one_leads_and_the_other_takes_over_when_it_stops(world: World) -> None:
    settings = settings_for(world, leader_lease_seconds=30.0)
    async with open_resources(settings) as first, open_resources(settings) as second:
        assert await ask_once(first)
        assert not await ask_once(second)
        assert await ask_once(first)

        await first.leadership.give_up(first.database)
        assert await ask_once(second)
        assert not await ask_once(first)


async def test_a_leader_that_vanished_is_followed_as_soon_as_its_lease_is_over(world: World) -> None:
    brief, lasting = (settings_for(world, leader_lease_seconds=seconds) for seconds in (1.0, 60.0))
    async with open_resources(brief) as first, open_resources(lasting) as second:
        assert await ask_once(first)
        lease_until = await world.superuser.fetchval("SELECT lease_until FROM leaders")
        await eventually(lambda: ask_once(second))

        assert await world.now() > lease_until
        assert not first.leadership.is_held
        assert not await ask_once(first)


async def test_the_question_renews_the_lead_in_time_and_notices_that_it_was_taken(world: World) -> None:
    async with open_resources(settings_for(world, leader_lease_seconds=60.0)) as leader:

        async def lease_until() -> datetime:
            until: datetime = await world.superuser.fetchval("SELECT lease_until FROM leaders")
            return until

        def let_a_third_of_the_lease_pass() -> None:
            leader.leadership.renewed(True, sent_at=time.monotonic() - 21.0)

        assert await ask_once(leader)
        first = await lease_until()
        let_a_third_of_the_lease_pass()
        assert await ask_once(leader)
        assert await lease_until() > first

        await world.superuser.execute(
            "UPDATE leaders SET holder = $1, lease_until = now() + interval '1 minute'", new_id()
        )
        let_a_third_of_the_lease_pass()
        assert not await ask_once(leader)
        assert not leader.leadership.is_held
