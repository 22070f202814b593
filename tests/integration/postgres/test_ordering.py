"""Lines of jobs with one ordering key: one at a time, in the order of submission, whatever happens at the same time."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from barnabas.domain.jobs import JobState
from barnabas.postgres.database import ConflictError, Session
from barnabas.postgres.redrives import redrive_job
from barnabas.postgres.submissions import Accepted, Mark, Submission, accept_jobs, accept_keyed_jobs
from barnabas.postgres.turns import Claim, Finishing, Turn, Turned, take_turn
from tests.support.world import World, new_id


async def submissions(
    world: World, tenant: UUID, keys: Sequence[str | None], *, due_at: datetime | None = None
) -> list[Submission]:
    """One for each ordering key."""
    number = await world.type_id("echo")
    return [
        Submission(tenant, new_id(), number, 1, 0, None, None, due_at, b"{}", None, None, None, key) for key in keys
    ]


async def accept(
    world: World, tenant: UUID, keys: Sequence[str | None], *, due_at: datetime | None = None
) -> tuple[list[UUID], Accepted]:
    jobs = await submissions(world, tenant, keys, due_at=due_at)
    async with world.engine.session() as session:
        accepted = await accept_jobs(session, jobs, told=())
    return [job.job_id for job in jobs], accepted


async def told(world: World) -> list[UUID]:
    """Jobs that Kafka is to be told of, in the order of their rows."""
    rows = await world.superuser.fetch("SELECT ref_ids FROM outbox WHERE kind = 1 ORDER BY outbox_id")
    return [job for row in rows for job in row["ref_ids"]]


async def line(world: World, tenant: UUID, key: str = "a") -> list[UUID]:
    rows = await world.superuser.fetch(
        "SELECT job_id FROM ordering WHERE tenant_id = $1 AND ordering_key = $2 ORDER BY seq", tenant, key
    )
    return [row["job_id"] for row in rows]


async def state(world: World, job: UUID) -> JobState:
    return JobState(await world.superuser.fetchval("SELECT state FROM jobs WHERE job_id = $1", job))


async def claimed(world: World, worker: UUID, tenant: UUID, jobs: Sequence[UUID]) -> list[UUID]:
    """Those of these jobs that the worker got."""
    claim = Claim(batch_id=new_id(), keys=[(tenant, job) for job in jobs], types={await world.type_id("echo"): 60_000})
    async with world.engine.session() as session:
        turned = await take_turn(session, Turn(worker_id=worker, claim=claim))
    assert turned.claims is not None
    return [job.job_id for job in turned.claims.claimed]


async def finish(
    session: Session, worker: UUID, tenant: UUID, job: UUID, *, dead: bool = False, hold: bool = False, fence: int = 1
) -> Turned:
    end = Finishing(tenant, job, fence, JobState.SUCCEEDED, new_id(), result=b"1")
    if dead:
        end = Finishing(tenant, job, fence, JobState.FAILED, new_id(), error=b"{}", reason="permanent")
    turned = await take_turn(session, Turn(worker_id=worker, finishing=[end], ordered=True, hold=hold))
    assert turned.closed == {job}
    return turned


@asynccontextmanager
async def sessions(world: World, count: int) -> AsyncIterator[list[Session]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(world.engine.session()) for _ in range(count)]


async def run(world: World, worker: UUID, tenant: UUID, job: UUID, **how: Any) -> Turned:
    """Claim a job and end it."""
    assert await claimed(world, worker, tenant, [job]) == [job]
    async with world.engine.session() as session:
        return await finish(session, worker, tenant, job, **how)


async def test_only_the_first_of_a_line_is_told_and_can_be_claimed(world: World) -> None:
    tenant, worker = await world.tenant(), await world.worker("echo")

    jobs, accepted = await accept(world, tenant, ["a", "a", None, "b", "a"])
    more, again = await accept(world, tenant, ["b", "a"])

    assert accepted.marks == {0: Mark.ORDERED, 1: Mark(3), 3: Mark.ORDERED, 4: Mark(3)}
    assert again.marks == {0: Mark(3), 1: Mark(3)}
    assert again.outbox_id is None
    assert await line(world, tenant, "a") == [jobs[0], jobs[1], jobs[4], more[1]]
    assert await line(world, tenant, "b") == [jobs[3], more[0]]
    assert await told(world) == [jobs[0], jobs[2], jobs[3]]
    assert await world.states(tenant) == {"queued": 3, "blocked": 4}
    assert sorted(await claimed(world, worker, tenant, [*jobs, *more])) == sorted([jobs[0], jobs[2], jobs[3]])


async def test_two_tenants_with_one_ordering_key_have_two_lines(world: World) -> None:
    first, second = await world.tenant(), await world.tenant()

    await accept(world, first, ["a"])
    _, accepted = await accept(world, second, ["a"])

    assert accepted.marks == {0: Mark.ORDERED}


async def test_each_end_calls_the_next_until_nothing_of_the_line_is_left(world: World) -> None:
    tenant, worker = await world.tenant(), await world.worker("echo")
    jobs, _ = await accept(world, tenant, ["a"] * 4)

    for job, following in zip(jobs, [*jobs[1:], None], strict=True):
        turned = await run(world, worker, tenant, job)
        called = [one.job_id for some in turned.told.values() for one in some]
        assert called == ([] if following is None else [following])

    assert await told(world) == jobs
    assert await world.states(tenant) == {"succeeded": 4}
    assert await world.superuser.fetchval("SELECT count(*) FROM ordering_keys") == 0
    assert await world.superuser.fetchval("SELECT count(*) FROM ordering") == 0


async def test_a_cancel_takes_a_job_out_of_its_line_and_passes_the_turn_if_it_had_it(world: World) -> None:
    tenant = await world.tenant()
    jobs, _ = await accept(world, tenant, ["a"] * 3)

    await world.engine.fetchrow("cancel_job", tenant, jobs[1])
    still_blocked = await state(world, jobs[2])
    await world.engine.fetchrow("cancel_job", tenant, jobs[0])

    assert still_blocked is JobState.BLOCKED
    assert await state(world, jobs[2]) is JobState.QUEUED
    assert await told(world) == [jobs[0], jobs[2]]


async def test_a_dead_letter_lets_the_next_pass_and_its_redrive_goes_before_all_that_wait(world: World) -> None:
    tenant, worker = await world.tenant(), await world.worker("echo")
    jobs, _ = await accept(world, tenant, ["a"] * 3)
    await run(world, worker, tenant, jobs[0], dead=True)

    async with world.engine.session() as session:
        redriven = await redrive_job(session, tenant, jobs[0], new_id=new_id())
    assert redriven.answer == "redriven"
    assert redriven.job_id is not None
    assert redriven.outbox_id is None
    assert await state(world, redriven.job_id) is JobState.BLOCKED
    assert await state(world, jobs[1]) is JobState.QUEUED
    assert await line(world, tenant) == [redriven.job_id, jobs[1], jobs[2]]
    for job in (jobs[1], redriven.job_id, jobs[2]):
        await run(world, worker, tenant, job)

    assert await told(world) == [jobs[0], jobs[1], redriven.job_id, jobs[2]]


async def test_a_redrive_into_an_empty_line_is_ready_at_once(world: World) -> None:
    tenant, worker = await world.tenant(), await world.worker("echo")
    (job,), _ = await accept(world, tenant, ["a"])
    await run(world, worker, tenant, job, dead=True)

    async with world.engine.session() as session:
        redriven = await redrive_job(session, tenant, job, new_id=new_id())

    assert redriven.job_id is not None
    assert redriven.outbox_id is not None
    await run(world, worker, tenant, redriven.job_id)
    assert await world.superuser.fetchval("SELECT count(*) FROM ordering_keys") == 0


async def test_a_dead_letter_that_holds_its_line_lets_nobody_pass_before_its_redrive_has_ended(world: World) -> None:
    tenant, worker = await world.tenant(), await world.worker("echo")
    jobs, _ = await accept(world, tenant, ["a"] * 2)

    turned = await run(world, worker, tenant, jobs[0], dead=True, hold=True)
    assert not turned.told
    late, accepted = await accept(world, tenant, ["a"])
    assert accepted.marks == {0: Mark(3)}
    assert await claimed(world, worker, tenant, [*jobs, *late]) == []
    async with world.engine.session() as session:
        redriven = await redrive_job(session, tenant, jobs[0], new_id=new_id())
    assert redriven.job_id is not None
    assert redriven.outbox_id is not None
    assert await line(world, tenant) == [redriven.job_id, jobs[1], late[0]]
    for job in (redriven.job_id, jobs[1], late[0]):
        await run(world, worker, tenant, job, hold=True)

    assert await world.superuser.fetchval("SELECT count(*) FROM ordering") == 0


async def test_a_blocked_job_that_is_due_later_waits_for_its_time_when_its_turn_has_come(world: World) -> None:
    tenant, worker = await world.tenant(), await world.worker("echo")
    due = await world.now() + timedelta(hours=1)
    (head,), _ = await accept(world, tenant, ["a"])
    (later,), _ = await accept(world, tenant, ["a"], due_at=due)
    timers = "SELECT ref_id, due_at FROM timers"
    assert await world.superuser.fetch(timers) == []

    await run(world, worker, tenant, head)

    assert await state(world, later) is JobState.SCHEDULED
    assert [tuple(row) for row in await world.superuser.fetch(timers)] == [(later, due)]
    assert await told(world) == [head]


async def test_keyed_and_unkeyed_jobs_of_one_call_stand_in_line_as_they_were_submitted(world: World) -> None:
    tenant = await world.tenant()
    jobs = await submissions(world, tenant, ["a"] * 4)

    async with world.engine.session() as session:
        accepted = await accept_keyed_jobs(session, jobs, [None, ("k", b"1"), None, ("k", b"1")])

    assert await line(world, tenant) == [job.job_id for job in jobs[:3]]
    assert [holder is not None and holder.made for holder in accepted.holders] == [True, True, True, False]
    assert accepted.marks == {0: Mark.ORDERED, 1: Mark(3), 2: Mark(3)}


async def test_no_line_is_ever_stuck_however_accepts_and_ends_race(world: World) -> None:
    tenant, worker = await world.tenant(), await world.worker("echo")
    chance = random.Random(20_260_701)
    async with sessions(world, 3) as (first, second, third):
        for _ in range(300):
            (head,), _ = await accept(world, tenant, ["a"])
            assert await claimed(world, worker, tenant, [head]) == [head]
            one, other = await submissions(world, tenant, ["a", "a"])
            steps: list[Coroutine[Any, Any, object]] = [
                accept_jobs(first, [one], told=()),
                accept_jobs(second, [other], told=()),
                finish(third, worker, tenant, head),
            ]
            chance.shuffle(steps)
            await asyncio.gather(*steps)

            # Exactly one of the two has the turn, whoever came first, and its end calls the other.
            standing = await line(world, tenant)
            assert sorted(standing) == sorted([one.job_id, other.job_id])
            for job in standing:
                await run(world, worker, tenant, job)
            assert await world.superuser.fetchval("SELECT count(*) FROM ordering_keys") == 0


async def test_flushes_over_the_same_lines_in_any_order_never_deadlock(world: World) -> None:
    tenants = [await world.tenant() for _ in range(3)]
    chance = random.Random(7)
    conflicts = 0

    async def flush(session: Session) -> None:
        nonlocal conflicts
        jobs = [one for tenant in tenants for one in await submissions(world, tenant, [f"k{n}" for n in range(8)])]
        chance.shuffle(jobs)
        try:
            await accept_jobs(session, jobs, told=())
        except ConflictError:
            conflicts += 1

    async with sessions(world, 6) as opened:
        for _ in range(25):
            await asyncio.gather(*[flush(session) for session in opened])

    assert conflicts == 0
    turns = await world.superuser.fetchval("SELECT count(*) FROM jobs WHERE state = 2")
    assert turns == 3 * 8


async def test_all_that_touches_lines_and_limits_at_once_never_deadlocks(world: World) -> None:
    tenants = [await world.tenant() for _ in range(3)]
    for tenant in tenants:
        await world.superuser.execute(
            "INSERT INTO gates (tenant_id, kind, starts_allowed) VALUES ($1, 3, 5000)", tenant
        )
    worker = await world.worker("echo")
    chance = random.Random(11)

    async def plain(session: Session) -> None:
        jobs = [one for tenant in tenants for one in await submissions(world, tenant, ["a", None, "b", "c"])]
        chance.shuffle(jobs)
        await accept_jobs(session, jobs, told=())

    async def keyed(session: Session) -> None:
        jobs = [one for tenant in tenants for one in await submissions(world, tenant, ["c", "b", None, "a"])]
        chance.shuffle(jobs)
        keys = [None if chance.random() < 0.3 else (str(chance.randrange(40)), b"x") for _ in jobs]
        await accept_keyed_jobs(session, jobs, keys)

    async def end(session: Session) -> None:
        tenant = chance.choice(tenants)
        ready = await session.connection.fetch(
            "SELECT job_id FROM jobs WHERE tenant_id = $1 AND state = 2 AND hooks = 2 LIMIT 3", tenant
        )
        for job in await claimed(world, worker, tenant, [row["job_id"] for row in ready]):
            await finish(session, worker, tenant, job, dead=chance.random() < 0.5)

    async def cancel(session: Session) -> None:
        tenant = chance.choice(tenants)
        some = await session.connection.fetch(
            "SELECT job_id FROM jobs WHERE tenant_id = $1 AND state = 1 LIMIT 3", tenant
        )
        for row in some:
            await session.fetchrow("cancel_job", tenant, row["job_id"])

    async def redrive(session: Session) -> None:
        for row in await session.connection.fetch("SELECT tenant_id, ref FROM dead_letters LIMIT 3"):
            await redrive_job(session, row["tenant_id"], row["ref"], new_id=new_id())

    async with sessions(world, 6) as opened:
        for _ in range(40):
            steps = [plain, plain, keyed, end, cancel, redrive]
            await asyncio.gather(*[step(session) for step, session in zip(steps, opened, strict=True)])

    # Every line has one whose turn it is, and that one isn't blocked; the others are.
    turns = await world.superuser.fetch(
        "SELECT count(*) FILTER (WHERE jobs.state <> 1 AND jobs.job_id = line.job_id) AS on_turn,"
        " count(*) FILTER (WHERE jobs.state <> 1 AND jobs.job_id <> line.job_id) AS astray"
        " FROM ordering_keys AS line JOIN ordering USING (tenant_id, ordering_key)"
        " JOIN jobs ON jobs.tenant_id = line.tenant_id AND jobs.job_id = ordering.job_id"
        " GROUP BY line.tenant_id, line.ordering_key"
    )
    assert {(row["on_turn"], row["astray"]) for row in turns} == {(1, 0)}
    assert len(turns) == 9
