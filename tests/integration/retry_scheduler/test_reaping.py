"""Leases that ran out: what dead workers held comes back, and nobody else's does."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from barnabas.contract.topics import JOBS
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.deliveries import DeliveryState
from barnabas.domain.jobs import Hook, JobState
from barnabas.postgres.database import LeaseOverError
from barnabas.postgres.deliveries import DeliveryKey, NewDelivery, open_deliveries
from barnabas.postgres.turns import ClaimedJob, Finishing, Releasing
from barnabas_retry_scheduler.reap_leases import reap_once, reap_overdue_once
from barnabas_retry_scheduler.resources import Resources, open_resources
from tests.integration.retry_scheduler.conftest import ask_once, of_job, settings_for, waits_for_a_lock
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.turns import claim_jobs, finish_jobs, release_jobs
from tests.support.world import World, new_id


@pytest.fixture
async def reaper(world: World, scheduler: Resources) -> Resources:
    """A scheduler that has reached Postgres for a whole lease, one second here."""
    await reach_for(scheduler, 1.1)
    return scheduler


async def reach_for(resources: Resources, seconds: float) -> None:
    """Postgres has answered for so long; an answer that took two seconds would begin it anew."""

    async def has_reached() -> bool:
        if resources.leadership.reached_seconds == 0.0:
            await ask_once(resources)
        return resources.leadership.reached_seconds > seconds

    await eventually(has_reached)


async def claim(world: World, worker_id: UUID, tenant_id: UUID, jobs: list[UUID]) -> list[ClaimedJob]:
    async with world.engine.session() as session:
        type_id = await world.type_id("echo")
        return (
            await claim_jobs(session, worker_id, new_id(), [(tenant_id, job) for job in jobs], {type_id: 60_000})
        ).claimed


async def seconds_since_postgres_started(world: World) -> float:
    started_at = await world.superuser.fetchval("SELECT pg_postmaster_start_time()")
    age: float = (await world.now() - started_at).total_seconds()
    return age


async def die(world: World, worker_id: UUID) -> None:
    """The worker has stopped renewing, and its lease is over."""
    await world.superuser.execute(
        "UPDATE workers SET lease_until = clock_timestamp() - interval '1 millisecond' WHERE worker_id = $1", worker_id
    )


async def test_a_dead_workers_jobs_are_queued_again_with_a_loss_and_told(world: World, reaper: Resources) -> None:
    tenant_id = await world.tenant()
    worker_id, other_id = await world.worker("echo"), await world.worker("echo")
    jobs = await world.submit(tenant_id, count=3)
    await claim(world, worker_id, tenant_id, jobs[:2])
    await claim(world, other_id, tenant_id, jobs[2:])
    await die(world, worker_id)
    async with TopicReader(world.kafka, JOBS[1].name) as topic:
        assert await reap_once(reaper) == 1
        for job_id in jobs[:2]:
            await topic.until(of_job(job_id, fence=1))

    assert await world.states(tenant_id) == {"queued": 2, "running": 1}
    rows = await world.superuser.fetch("SELECT losses, attempt, hooks FROM jobs WHERE state = 2")
    assert {(row["losses"], row["attempt"], row["hooks"]) for row in rows} == {(1, 0, Hook.ISOLATED)}
    kinds = await world.superuser.fetch("SELECT kind, attempt, worker_id FROM job_attempts")
    assert {tuple(row) for row in kinds} == {(AttemptKind.LOSS, 1, worker_id)}
    assert await world.superuser.fetchval("SELECT count(*) FROM lease_batches") == 1
    assert await world.superuser.fetchval("SELECT count(*) FROM outbox") == 0


async def test_the_third_loss_is_a_dead_letter(world: World, reaper: Resources) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.submit(tenant_id)
    for _ in range(3):
        worker_id = await world.worker("echo")
        await claim(world, worker_id, tenant_id, [job_id])
        await die(world, worker_id)
        await reap_once(reaper)
    job = await world.job(tenant_id, job_id)

    assert (job.state, job.reason, job.losses, job.view.attempt) == (JobState.FAILED, "worker_lost", 3, 0)
    assert b"worker_lost" in bytes(job.view.error)
    dead = await world.superuser.fetch("SELECT kind, ref, reason FROM dead_letters")
    assert [tuple(row) for row in dead] == [(1, job_id, "worker_lost")]


async def test_a_hand_back_is_neither_an_attempt_nor_a_loss(world: World, reaper: Resources) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    (job_id,) = await world.submit(tenant_id)
    await claim(world, worker_id, tenant_id, [job_id])
    async with world.engine.session() as session:
        await release_jobs(session, worker_id, [Releasing(tenant_id, job_id, 1, AttemptKind.HAND_BACK)])
    await die(world, worker_id)
    await reap_once(reaper)

    row = await world.superuser.fetchrow("SELECT state, losses, attempt, fence FROM jobs")
    assert tuple(row) == (JobState.QUEUED, 0, 0, 1)


async def test_a_worker_that_was_reaped_can_neither_claim_nor_finish_nor_renew(world: World, reaper: Resources) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    jobs = await world.submit(tenant_id, count=2)
    await claim(world, worker_id, tenant_id, jobs[:1])
    await die(world, worker_id)
    await reap_once(reaper)

    with pytest.raises(LeaseOverError):
        await claim(world, worker_id, tenant_id, jobs[1:])
    async with world.engine.session() as session:
        late = Finishing(tenant_id, jobs[0], 1, JobState.SUCCEEDED, reaper.ids.mint(), result=b"1")
        assert (await finish_jobs(session, worker_id, [late])).closed == frozenset()
        assert await session.fetchrow("renew_lease", worker_id, timedelta(seconds=10)) is None
    assert await world.states(tenant_id) == {"queued": 2}


async def test_a_lost_job_whose_cancel_was_asked_for_is_cancelled(world: World, reaper: Resources) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    (job_id,) = await world.submit(tenant_id)
    await claim(world, worker_id, tenant_id, [job_id])
    async with world.engine.session() as session:
        await session.fetchrow("cancel_job", tenant_id, job_id)
    await die(world, worker_id)
    await reap_once(reaper)

    assert await world.states(tenant_id) == {"cancelled": 1}
    assert await world.superuser.fetchval("SELECT count(*) FROM cancel_requests") == 0


async def test_a_dead_workers_places_in_a_gate_are_free_again_and_whoever_waits_is_called(
    world: World, reaper: Resources
) -> None:
    tenant_id = await world.tenant(running_at_most=2)
    worker_id = await world.worker("echo")
    jobs = await world.submit(tenant_id, count=5)
    held = await claim(world, worker_id, tenant_id, jobs)
    assert len(held) == 2
    waiting = await world.superuser.fetch("SELECT job_id FROM waiting ORDER BY seq")
    await die(world, worker_id)
    await reap_once(reaper)

    assert await world.superuser.fetchval("SELECT used FROM gates WHERE tenant_id = $1", tenant_id) == 0
    woken = await world.superuser.fetch("SELECT job_id FROM waiting WHERE woken_at IS NOT NULL ORDER BY seq")
    assert [row["job_id"] for row in woken] == [row["job_id"] for row in waiting[:2]]


async def test_a_dead_notifiers_deliveries_are_pending_again_and_not_charged(world: World, reaper: Resources) -> None:
    tenant_id, endpoint_id = await world.tenant(), new_id()
    worker_id = await world.worker()
    event_id = reaper.ids.mint()
    key = DeliveryKey(tenant_id, event_id, endpoint_id)
    async with world.engine.session() as session:
        new = NewDelivery(key, new_id(), new_id(), DeliveryState.RUNNING)
        await open_deliveries(session, worker_id, new_id(), [new])
    await die(world, worker_id)

    assert await reap_once(reaper) == 1
    row = await world.superuser.fetchrow("SELECT state, attempt, worker_id FROM deliveries")
    assert tuple(row) == (DeliveryState.PENDING, 0, None)
    assert await world.superuser.fetchval("SELECT count(*) FROM lease_batches") == 0


async def test_nobody_is_reaped_before_the_reaper_has_reached_postgres_for_a_whole_lease(world: World) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    await claim(world, worker_id, tenant_id, await world.submit(tenant_id))
    await die(world, worker_id)
    async with open_resources(settings_for(world)) as fresh:
        # As long as may be: Postgres itself has to have run for a lease, too.
        lease_seconds = await seconds_since_postgres_started(world)
        fresh.settings = fresh.settings.model_copy(update={"lease_seconds": lease_seconds})

        def let_a_lease_pass() -> None:
            assert fresh.leadership._reached_since is not None
            fresh.leadership._reached_since -= lease_seconds

        await reach_for(fresh, 0.0)

        assert await reap_once(fresh) == 0
        assert await world.states(tenant_id) == {"running": 1}

        let_a_lease_pass()
        # As after a connection that broke: the lease counts from anew.
        fresh.leadership.unanswered()
        await reach_for(fresh, 0.0)
        assert await reap_once(fresh) == 0

        let_a_lease_pass()
        assert await reap_once(fresh) == 1


async def test_nobody_is_reaped_before_postgres_itself_has_run_for_a_whole_lease(
    world: World, reaper: Resources
) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    await claim(world, worker_id, tenant_id, await world.submit(tenant_id))
    await die(world, worker_id)
    lease_seconds = await seconds_since_postgres_started(world) + 100.0
    long_lease = reaper.settings.model_copy(update={"lease_seconds": lease_seconds})
    reaper.settings, short_lease = long_lease, reaper.settings
    assert reaper.leadership._reached_since is not None
    reaper.leadership._reached_since -= lease_seconds

    assert await reap_once(reaper) == 0

    reaper.settings = short_lease
    assert await reap_once(reaper) == 1


async def test_a_renewal_that_comes_first_saves_the_worker(world: World, reaper: Resources) -> None:
    worker_id = await world.worker("echo")
    await die(world, worker_id)
    async with world.engine.transaction() as session:
        # The lease is set anew in a transaction that the reaper has to wait for.
        await session.connection.execute(
            "UPDATE workers SET lease_until = clock_timestamp() + interval '60 s' WHERE worker_id = $1", worker_id
        )
        reaping = asyncio.create_task(reap_once(reaper))
        await eventually(lambda: waits_for_a_lock(world))

    assert await reaping == 0
    assert await world.superuser.fetchval("SELECT count(*) FROM workers") == 1


async def test_an_attempt_past_its_deadline_and_the_grace_is_taken_back_from_a_living_worker(
    world: World, reaper: Resources
) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    overdue, in_time = await world.submit(tenant_id, count=2, timeout_ms=300_000)
    await claim(world, worker_id, tenant_id, [overdue, in_time])
    await world.superuser.execute("UPDATE lease_batches SET claimed_at = claimed_at - interval '600 s'")
    await world.superuser.execute(
        "UPDATE jobs SET started_at = started_at - interval '311 s' WHERE job_id = $1", overdue
    )
    await ask_once(reaper)
    assert await reaper.bells.overdue.heard(0)

    assert await reap_overdue_once(reaper) == 1
    states = {row["job_id"]: row["state"] for row in await world.superuser.fetch("SELECT job_id, state FROM jobs")}
    assert states == {overdue: JobState.QUEUED, in_time: JobState.RUNNING}
    assert await world.superuser.fetchval("SELECT count(*) FROM workers") == 1
