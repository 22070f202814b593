"""Due times that Postgres carries, and the second look at those that a delay tier carries."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from barnabas.contract.records import decode
from barnabas.contract.topics import JOBS
from barnabas.domain.attempts import AttemptKind
from barnabas.postgres.turns import Releasing
from barnabas.runtime.clock import DatabaseClock
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import answer
from barnabas_retry_scheduler.poll_timers import poll_once
from barnabas_retry_scheduler.resources import Resources
from tests.integration.retry_scheduler.conftest import of_job, waits_for_a_lock
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.turns import claim_jobs, release_jobs
from tests.support.world import World, new_id


async def timers(world: World, tenant_id: UUID) -> int:
    """How many timers of a tenant are left."""
    count: int = await world.superuser.fetchval("SELECT count(*) FROM timers WHERE tenant_id = $1", tenant_id)
    return count


async def retried(world: World, tenant_id: UUID, *, due_in: float) -> UUID:
    """A job whose first attempt has failed, and whose record for `retries` was lost."""
    worker_id = await world.worker("echo")
    (job_id,) = await world.submit(tenant_id)
    async with world.engine.session() as session:
        type_id = await world.type_id("echo")
        claims = await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {type_id: 60_000})
        due_at = await world.now() + timedelta(seconds=due_in)
        releasing = Releasing(tenant_id, job_id, claims.claimed[0].fence, AttemptKind.ATTEMPT, due_at)
        await release_jobs(session, worker_id, [releasing])
    await world.superuser.execute("DELETE FROM outbox WHERE ref_ids && $1", [job_id])
    return job_id


async def test_a_job_with_a_start_time_is_published_when_it_is_due_and_its_timer_is_gone(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.insert(tenant_id, run_at=await world.now() - timedelta(milliseconds=1))
    async with TopicReader(world.kafka, JOBS[1].name) as jobs:
        await poll_once(scheduler)
        record = await jobs.until(of_job(job_id))

    assert decode(record.value).due_ms == 0
    assert await world.states(tenant_id) == {"queued": 1}
    assert await timers(world, tenant_id) == 0
    assert await world.superuser.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_job_is_not_touched_before_it_is_due_and_the_poller_says_when_to_look_again(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    run_at = await world.now() + timedelta(hours=1)
    await world.insert(tenant_id, run_at=run_at)

    class StandingClock(DatabaseClock):
        def now(self) -> datetime:
            return run_at - timedelta(seconds=0.8)

    scheduler.clock = StandingClock(world.now)

    assert await poll_once(scheduler) == pytest.approx(0.8)
    assert await world.states(tenant_id) == {"scheduled": 1}
    assert await timers(world, tenant_id) == 1


async def test_the_poller_wakes_at_the_very_moment(world: World, scheduler: Resources) -> None:
    async def latest_of_nine_in_ten() -> float:
        tenant_id, stop = await world.tenant(), Stop()
        run_at = await world.now() + timedelta(seconds=0.7)
        for n in range(20):
            await world.insert(tenant_id, run_at=run_at + timedelta(seconds=n / 20))

        async def step() -> float | None:
            rest = await poll_once(scheduler)
            if not await timers(world, tenant_id):
                stop.set()
            else:
                # The next one is never further ahead than the next question.
                assert rest is not None
            return rest

        scheduler.bells.timers.ring()
        await answer(scheduler.bells.timers, step, stop)
        rows = await world.superuser.fetch("SELECT ready_at - due_at AS late FROM jobs WHERE tenant_id = $1", tenant_id)
        late: list[float] = sorted(row["late"].total_seconds() for row in rows)
        print(f"late by p50 {late[10] * 1e3:.1f} ms, p90 {late[18] * 1e3:.1f} ms")
        assert late[0] >= 0
        return late[18]

    # A machine that stands still makes them late for once, a slow product each time.
    await eventually(latest_of_nine_in_ten, until=lambda late: late < 0.25)


async def test_a_retry_whose_record_was_lost_comes_back_five_seconds_after_it_was_due(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    job_id = await retried(world, tenant_id, due_in=0.0)
    # Five seconds may pass while the machine stands still.
    await world.superuser.execute("UPDATE timers SET poll_at = poll_at + interval '1 hour'")
    await poll_once(scheduler)

    assert await world.states(tenant_id) == {"retrying": 1}

    await world.superuser.execute("UPDATE timers SET poll_at = poll_at - interval '1 hour 5 seconds'")
    async with TopicReader(world.kafka, JOBS[1].name) as jobs:
        await poll_once(scheduler)
        await jobs.until(of_job(job_id, fence=1))

    assert await world.states(tenant_id) == {"queued": 1}


async def test_a_timer_looks_five_seconds_late_where_a_tier_carries_the_record_and_at_once_above_an_hour(
    world: World,
) -> None:
    tenant_id = await world.tenant()
    carried = await retried(world, tenant_id, due_in=3_000.0)
    kept = await retried(world, tenant_id, due_in=3_700.0)
    rows = await world.superuser.fetch("SELECT ref_id, poll_at - due_at AS later FROM timers")

    assert {row["ref_id"]: row["later"].total_seconds() for row in rows} == {carried: 5.0, kept: 0.0}


async def test_the_timer_of_a_job_that_has_gone_its_way_is_only_deleted(world: World, scheduler: Resources) -> None:
    tenant_id = await world.tenant()
    job_id = await retried(world, tenant_id, due_in=0.0)
    worker_id = await world.worker("echo")
    async with world.engine.session() as session:
        await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
    await world.superuser.execute("UPDATE timers SET poll_at = due_at")

    await poll_once(scheduler)

    assert await timers(world, tenant_id) == 0
    assert await world.states(tenant_id) == {"running": 1}
    assert await world.superuser.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_parked_job_that_becomes_due_is_queued_but_called_by_its_gate_only(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant(running_at_most=1)
    worker_id = await world.worker("echo")
    type_id = await world.type_id("echo")
    jobs = await world.insert(tenant_id, run_at=await world.now() - timedelta(seconds=1), count=2)
    async with world.engine.session() as session:
        await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id) for job_id in jobs], {type_id: 60_000})

    await poll_once(scheduler)

    assert await world.states(tenant_id) == {"running": 1, "queued": 1}
    assert await world.superuser.fetchval("SELECT count(*) FROM outbox") == 0


async def test_many_due_timers_are_taken_in_batches_and_all_of_them_are_told(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    await world.insert(tenant_id, run_at=await world.now() - timedelta(seconds=1), count=2_500)

    rests = [await poll_once(scheduler) for _ in range(3)]

    assert rests == [0.0, 0.0, None]
    assert await world.states(tenant_id) == {"queued": 2_500}
    assert await timers(world, tenant_id) == 0
    await eventually(lambda: world.superuser.fetchval("SELECT count(*) = 0 FROM outbox"))


@pytest.mark.parametrize("moved", ["claimed", "cancelled"])
async def test_a_poll_that_meets_another_move_of_its_job_waits_for_it_and_leaves_the_job_alone(
    world: World, scheduler: Resources, moved: str
) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.insert(tenant_id, run_at=await world.now() - timedelta(seconds=1))
    worker_id = await world.worker("echo")
    type_id = await world.type_id("echo")
    async with world.engine.transaction() as session:
        if moved == "claimed":
            await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {type_id: 60_000})
        else:
            await session.fetchrow("cancel_job", tenant_id, job_id)
        poll = asyncio.create_task(poll_once(scheduler))
        await eventually(lambda: waits_for_a_lock(world))
    await poll

    assert await world.states(tenant_id) == ({"running": 1} if moved == "claimed" else {"cancelled": 1})
    assert await timers(world, tenant_id) == 0
    kinds = await world.superuser.fetch("SELECT kind FROM outbox")
    assert [row["kind"] for row in kinds] == ([] if moved == "claimed" else [3])


async def test_a_timer_that_was_set_anew_while_it_was_polled_stays(world: World, scheduler: Resources) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    job_id = await retried(world, tenant_id, due_in=0.0)
    await world.superuser.execute("UPDATE timers SET poll_at = due_at")
    due_at = await world.now() + timedelta(seconds=100)
    async with world.engine.transaction() as session:
        await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
        await release_jobs(session, worker_id, [Releasing(tenant_id, job_id, 2, AttemptKind.ATTEMPT, due_at)])
        poll = asyncio.create_task(poll_once(scheduler))
        await eventually(lambda: waits_for_a_lock(world))
    await poll

    assert await world.states(tenant_id) == {"retrying": 1}
    assert await world.superuser.fetchval("SELECT due_at FROM timers WHERE ref_id = $1", job_id) == due_at
