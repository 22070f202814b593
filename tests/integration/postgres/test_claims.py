"""What Postgres promises about claims, fences and limits, whatever its clients do at the same time."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec import structs

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.ids import uuid7
from barnabas.domain.jobs import JobState
from barnabas.domain.limits import Limits
from barnabas.errors import SettingsError
from barnabas.postgres.database import LeaseOverError, Session, open_database
from barnabas.postgres.gates import set_limits
from barnabas.postgres.turns import Claims, Finishing, Releasing, Turned, Verdict, WokenJob
from tests.support.eventually import eventually
from tests.support.turns import claim_jobs, finish_jobs, release_jobs
from tests.support.world import World, new_id


async def claim(world: World, worker: UUID, tenant: UUID, jobs: list[UUID], *types: str) -> Claims:
    numbers = [await world.type_id(name) for name in types or ("echo",)]
    async with world.engine.session() as session:
        return await claim_jobs(
            session, worker, new_id(), [(tenant, job) for job in jobs], dict.fromkeys(numbers, 60_000)
        )


def called(turned: Turned) -> list[WokenJob]:
    """Whom a turn called from where they waited."""
    return [job for jobs in turned.told.values() for job in jobs]


async def gate_of(world: World, tenant: UUID) -> tuple[int | None, int]:
    """How many of a tenant's jobs may run, and how many do."""
    row = await world.superuser.fetchrow("SELECT allowed, used FROM gates WHERE tenant_id = $1 AND kind = 1", tenant)
    return row["allowed"], row["used"]


def succeeded(tenant: UUID, job: UUID, fence: int = 1) -> Finishing:
    return Finishing(tenant, job, fence, JobState.SUCCEEDED, new_id(), result=b"1")


async def test_a_job_is_claimed_by_exactly_one_of_many_workers(world: World) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant, count=50)
    workers = [await world.worker("echo") for _ in range(4)]

    claims = await asyncio.gather(*[claim(world, worker, tenant, jobs) for worker in workers])

    assert sorted(job.job_id for one in claims for job in one.claimed) == jobs
    assert sum(one.verdicts[Verdict.STALE] for one in claims) == 150


async def test_a_limit_is_never_exceeded_by_claims_at_the_same_time(world: World) -> None:
    tenant = await world.tenant(running_at_most=5)
    jobs = await world.insert(tenant, count=40)
    workers = [await world.worker("echo") for _ in range(4)]

    claims = await asyncio.gather(
        *[claim(world, worker, tenant, jobs[number::4]) for number, worker in enumerate(workers)]
    )

    assert sum(len(one.claimed) for one in claims) == 5
    assert sum(one.verdicts.get(Verdict.PARKED, 0) for one in claims) == 35
    assert await gate_of(world, tenant) == (5, 5)


async def test_claims_and_finishes_over_many_limited_tenants_never_deadlock(world: World) -> None:
    tenants = [await world.tenant(running_at_most=3) for _ in range(6)]
    jobs = {tenant: await world.insert(tenant, count=20) for tenant in tenants}
    workers = [await world.worker("echo") for _ in range(4)]
    echo = await world.type_id("echo")

    async def work(worker: UUID, number: int) -> int:
        done = 0
        for turn in range(20):
            keys = [(tenant, jobs[tenant][(turn + number) % 20]) for tenant in tenants]
            async with world.engine.transaction() as session:
                claims = await claim_jobs(session, worker, new_id(), keys, {echo: 60_000})
                ended = [succeeded(job.tenant_id, job.job_id, job.fence) for job in claims.claimed]
                if ended:
                    done += len((await finish_jobs(session, worker, ended)).closed)
        return done

    assert sum(await asyncio.gather(*[work(worker, number) for number, worker in enumerate(workers)])) > 0
    for tenant in tenants:
        assert await gate_of(world, tenant) == (3, 0)


async def test_whoever_arrives_while_others_wait_goes_behind_them(world: World) -> None:
    tenant = await world.tenant(running_at_most=1)
    first, second, late = await world.insert(tenant, count=3)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, [first])
    await claim(world, worker, tenant, [second])

    async with world.engine.session() as session:
        woken = called(await finish_jobs(session, worker, [succeeded(tenant, first)]))
    behind = await claim(world, worker, tenant, [late])
    in_turn = await claim(world, worker, tenant, [job.job_id for job in woken])

    assert [job.job_id for job in woken] == [second]
    assert behind.verdicts[Verdict.PARKED] == 1
    assert [job.job_id for job in in_turn.claimed] == [second]


async def test_parked_jobs_are_woken_by_priority_and_then_in_their_order(world: World) -> None:
    tenant = await world.tenant(running_at_most=1)
    (running,) = await world.insert(tenant)
    medium = await world.insert(tenant, count=2)
    (critical,) = await world.insert(tenant, priority=3)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, [running])
    await claim(world, worker, tenant, medium)
    await claim(world, worker, tenant, [critical])
    order = []

    held = running
    for _ in range(3):
        async with world.engine.session() as session:
            (woken,) = called(await finish_jobs(session, worker, [succeeded(tenant, held)]))
        held = woken.job_id
        order.append(held)
        await claim(world, worker, tenant, [held])

    assert order == [critical, *medium]


async def test_a_worker_that_lost_its_lease_cannot_claim(world: World) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant)
    worker = await world.worker("echo", lease_seconds=0.0)

    with pytest.raises(LeaseOverError):
        await claim(world, worker, tenant, jobs)


async def test_a_worker_that_lost_its_lease_cannot_finish_the_job(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant)
    zombie, successor = await world.worker("echo"), await world.worker("echo")
    await claim(world, zombie, tenant, [job])
    async with world.engine.session() as session:
        await release_jobs(session, zombie, [Releasing(tenant, job, 1, AttemptKind.LOSS)])
    await claim(world, successor, tenant, [job])

    async with world.engine.session() as session:
        late = await finish_jobs(session, zombie, [succeeded(tenant, job, 1)])
        forged = await finish_jobs(session, zombie, [succeeded(tenant, job, 2)])
        right = await finish_jobs(session, successor, [succeeded(tenant, job, 2)])

    assert not late.closed
    assert not forged.closed
    assert right.closed == {job}


async def test_a_finish_whose_answer_was_lost_may_be_repeated(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, [job])
    finishing = [succeeded(tenant, job)]

    async with world.engine.session() as session:
        first = await finish_jobs(session, worker, finishing)
        again = await finish_jobs(session, worker, finishing)

    assert first.closed == again.already == {job}
    assert first.ended_outbox_id is not None
    assert again.ended_outbox_id is None


async def test_an_ended_job_never_changes(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, [job])
    async with world.engine.session() as session:
        await finish_jobs(session, worker, [succeeded(tenant, job)])

    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await world.superuser.execute("UPDATE job_results SET state = 6 WHERE job_id = $1", job)


async def test_a_loss_is_not_charged_and_isolates_the_job(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, [job])

    async with world.engine.session() as session:
        await release_jobs(session, worker, [Releasing(tenant, job, 1, AttemptKind.LOSS)])
    (again,) = (await claim(world, worker, tenant, [job])).claimed

    assert (again.attempt, again.losses, again.fence) == (1, 1, 2)
    assert again.hooks & 64


async def test_a_job_that_is_not_due_yet_is_early_and_keeps_its_timer(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant, run_at=await world.now() + timedelta(hours=1))
    worker = await world.worker("echo")

    claims = await claim(world, worker, tenant, [job])

    assert claims.verdicts[Verdict.EARLY] == 1
    assert await world.superuser.fetchval("SELECT count(*) FROM timers WHERE ref_id = $1", job) == 1


async def test_a_job_of_an_unknown_type_waits_under_its_type(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant, "translate")
    worker = await world.worker("echo")

    claims = await claim(world, worker, tenant, [job])
    (taken,) = (await claim(world, worker, tenant, [job], "translate")).claimed

    assert claims.verdicts[Verdict.UNHANDLED] == 1
    assert taken.job_id == job
    assert await world.superuser.fetchval("SELECT count(*) FROM waiting") == 0


async def test_a_limit_set_while_jobs_run_counts_them_once(world: World) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant, count=4)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, jobs[:3])

    await set_limits(world.engine, tenant, Limits(concurrency=3))
    await set_limits(world.engine, tenant, Limits(concurrency=3))
    refused = await claim(world, worker, tenant, jobs[3:])
    async with world.engine.session() as session:
        await finish_jobs(session, worker, [succeeded(tenant, job) for job in jobs[:3]])

    assert refused.verdicts[Verdict.PARKED] == 1
    assert await gate_of(world, tenant) == (3, 0)


async def test_a_cancel_that_races_a_retry_ends_the_job(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, [job])
    await world.engine.fetchrow("cancel_job", tenant, job)

    due = await world.now() + timedelta(seconds=30)
    async with world.engine.session() as session:
        released = await release_jobs(session, worker, [Releasing(tenant, job, 1, AttemptKind.ATTEMPT, due)])

    assert not released.released
    assert released.cancel_wanted == {job}


async def test_a_failure_that_comes_after_an_answered_cancel_ends_as_cancelled(world: World) -> None:
    """The worker hears of a cancel with its next renewal; a job that fails for good before that was cancelled first."""
    tenant = await world.tenant()
    jobs = await world.insert(tenant, count=2)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, jobs)
    for job in jobs:
        await world.engine.fetchrow("cancel_job", tenant, job)
    failed = Finishing(tenant, jobs[0], 1, JobState.FAILED, new_id(), reason="permanent_error")

    async with world.engine.session() as session:
        first = await finish_jobs(session, worker, [failed, succeeded(tenant, jobs[1])])
        again = structs.replace(failed, state=JobState.CANCELLED, reason=None)
        second = await finish_jobs(session, worker, [again])

    assert first.closed == {jobs[1]}
    assert first.cancel_wanted == {jobs[0]}
    assert second.closed == {jobs[0]}
    assert await world.states(tenant) == {"succeeded": 1, "cancelled": 1}
    assert await world.superuser.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_job_ends_neither_before_its_start_nor_after_its_place_was_given_back(world: World) -> None:
    """Whatever the clock of the worker that names the event."""
    tenant = await world.tenant()
    jobs = await world.insert(tenant, count=2)
    worker = await world.worker("echo")
    await claim(world, worker, tenant, jobs)
    now = time.time() * 1000
    early, late = (uuid7(int(now + minutes * 60_000), bytes(10)) for minutes in (-10, 10))

    async with world.engine.session() as session:
        ends = [
            structs.replace(succeeded(tenant, job), event_id=at) for job, at in zip(jobs, (early, late), strict=True)
        ]
        await finish_jobs(session, worker, ends)
    rows = await world.superuser.fetch(
        "SELECT started_at, finished_at, clock_timestamp() AS now FROM job_results WHERE tenant_id = $1", tenant
    )

    assert len(rows) == 2
    assert all(row["started_at"] <= row["finished_at"] <= row["now"] for row in rows)


async def test_every_update_of_an_open_job_stays_on_its_page(world: World) -> None:
    tenant = await world.tenant()
    worker = await world.worker("echo")
    for _ in range(4):
        jobs = await world.insert(tenant, count=500)
        await claim(world, worker, tenant, jobs)
    await world.superuser.execute("SELECT pg_stat_force_next_flush()")

    async def hot_updates() -> tuple[int, int]:
        row = await world.superuser.fetchrow(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs'"
        )
        return row["n_tup_upd"], row["n_tup_hot_upd"]

    # A session that rests hands over what it counted after ten seconds.
    updates, hot = await eventually(hot_updates, until=lambda counts: counts[0] >= 2000, timeout=120)

    assert hot == updates


async def test_a_request_sees_its_own_tenant_only(world: World) -> None:
    ours, theirs = await world.tenant(), await world.tenant()
    await world.insert(ours, count=2)
    await world.insert(theirs, count=3)

    async with open_database(world.logins.api_dsn, login="api", size_max=2) as api:
        async with api.tenant(ours) as session:
            seen = await session.connection.fetchval("SELECT count(*) FROM jobs")
            payloads = await session.connection.fetchval("SELECT count(*) FROM job_payloads")
        async with api.transaction() as session:
            without = await session.connection.fetchval("SELECT count(*) FROM jobs")

    assert (seen, payloads, without) == (2, 2, 0)


async def test_a_request_cannot_reach_a_partition_around_its_table(world: World) -> None:
    async with open_database(world.logins.api_dsn, login="api", size_max=2) as api, api.session() as session:
        partition = await world.superuser.fetchval(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'job_payloads'::regclass LIMIT 1"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.connection.fetch(f"SELECT * FROM {partition}")


async def test_a_service_refuses_a_login_with_too_many_rights(world: World) -> None:
    with pytest.raises(SettingsError):
        async with open_database(world.logins.owner_dsn, login="engine", size_max=1):
            pass


async def test_a_payload_outlives_its_day_while_its_job_is_open(world: World) -> None:
    tenant = await world.tenant()
    (job,) = await world.insert(tenant, payload=b'{"kept": true}')
    worker = await world.worker("echo")
    # The day that it was sent on, which may be over.
    day = await world.superuser.fetchval(
        "SELECT to_date(right(tableoid::regclass::text, 8), 'YYYYMMDD') FROM job_payloads WHERE job_id = $1", job
    )

    dropped = await world.engine.pool.fetchval("SELECT drop_partition_v1('job_payloads', $1)", day)
    (claimed,) = (await claim(world, worker, tenant, [job])).claimed

    assert dropped
    assert claimed.payload == b'{"kept": true}'


async def test_a_turn_looks_up_its_own_jobs_however_many_others_are_open(world: World) -> None:
    tenant = await world.tenant()
    worker = await world.worker("echo")
    # What a busy hour leaves behind: a large table with next to nothing in it, and statistics that say so.
    old = await world.insert(tenant, count=20_000)
    await world.superuser.execute("DELETE FROM jobs WHERE job_id <> $1", old[-1])
    await world.superuser.execute("VACUUM jobs")
    await world.superuser.execute("VACUUM waiting")
    jobs = await world.insert(tenant, count=19_000)
    # What this one read so far must not be counted later, among what the turn reads.
    await world.superuser.execute("SELECT pg_stat_force_next_flush()")
    async with world.engine.session() as session:
        before = await _entries_read(session)
        keys = [(tenant, job) for job in jobs[:50]]
        claims = await claim_jobs(session, worker, new_id(), keys, {await world.type_id("echo"): 60_000})
        await finish_jobs(session, worker, [succeeded(tenant, job.job_id, job.fence) for job in claims.claimed])
        read = await _entries_read(session) - before

    assert len(claims.claimed) == 50
    assert read < 2_000


async def _entries_read(session: Session) -> int:
    """Index entries of `jobs` that statements of this very connection have read so far, among others."""
    await session.connection.execute("SELECT pg_stat_force_next_flush()")
    read: int = await session.connection.fetchval(
        "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'jobs'"
    )
    return read
