"""Limits that are set while jobs run: counted once each, exact from then on, and taken away again."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from barnabas.domain.jobs import Hook, JobState
from barnabas.domain.limits import Limits, LimitsUse, TypeLimits, TypeUse
from barnabas.postgres.database import Session
from barnabas.postgres.gates import read_limits, set_limits
from barnabas.postgres.turns import Claims, Finishing, Verdict
from tests.support.eventually import eventually
from tests.support.turns import claim_jobs, finish_jobs
from tests.support.world import World, new_id


async def claim(world: World, session: Session, worker: UUID, tenant: UUID, jobs: list[UUID], *types: str) -> Claims:
    numbers = [await world.type_id(name) for name in types or ("echo",)]
    return await claim_jobs(session, worker, new_id(), [(tenant, job) for job in jobs], dict.fromkeys(numbers, 60_000))


def succeeded(tenant: UUID, job: UUID, fence: int = 1) -> Finishing:
    return Finishing(tenant, job, fence, JobState.SUCCEEDED, new_id(), result=b"1")


async def use_of(world: World, tenant: UUID) -> LimitsUse:
    found = await read_limits(world.engine, tenant)
    assert found is not None
    return found[1]


async def places(world: World, tenant: UUID) -> tuple[int, int]:
    """How many running jobs hold a place at the tenant's gate, and at their type's."""
    row = await world.superuser.fetchrow(
        "SELECT count(*) FILTER (WHERE hooks & $2 <> 0) AS tenant, count(*) FILTER (WHERE hooks & $3 <> 0) AS type"
        " FROM jobs WHERE tenant_id = $1 AND state = 3",
        tenant,
        int(Hook.LIMITED),
        int(Hook.LIMITED_TYPE),
    )
    return row["tenant"], row["type"]


async def test_what_runs_already_is_counted_once_at_each_gate(world: World) -> None:
    tenant = await world.tenant()
    echoes = await world.insert(tenant, "echo", count=3)
    scorings = await world.insert(tenant, "scoring", count=3)
    worker = await world.worker("echo", "scoring")
    async with world.engine.session() as session:
        await claim(world, session, worker, tenant, echoes[:2] + scorings[:2], "echo", "scoring")

    limits = Limits(concurrency=5, types={"scoring": TypeLimits(concurrency=2)})
    for _ in range(2):
        await set_limits(world.engine, tenant, limits)
    counted = await use_of(world, tenant)
    async with world.engine.session() as session:
        later = await claim(world, session, worker, tenant, [echoes[2], scorings[2]], "echo", "scoring")
        held = await places(world, tenant)
        full = await use_of(world, tenant)
        await finish_jobs(session, worker, [succeeded(tenant, job) for job in echoes + scorings[:2]])

    assert counted == LimitsUse(running=4, types={"scoring": TypeUse(running=2)})
    assert [job.job_id for job in later.claimed] == [echoes[2]]
    assert later.verdicts[Verdict.PARKED] == 1
    assert held == (5, 2)
    assert full == LimitsUse(running=5, types={"scoring": TypeUse(running=2)})
    assert await use_of(world, tenant) == LimitsUse(running=0, types={"scoring": TypeUse(running=0)})


async def test_a_claim_that_began_before_the_limit_is_waited_for_and_counted(world: World) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant, count=2)
    worker = await world.worker("echo")
    setting: asyncio.Task[None] | None = None

    async def allowed() -> int | None:
        number: int | None = await world.superuser.fetchval("SELECT allowed FROM gates WHERE tenant_id = $1", tenant)
        return number

    async with world.engine.transaction() as session:
        await claim(world, session, worker, tenant, jobs)
        setting = asyncio.create_task(set_limits(world.engine, tenant, Limits(concurrency=1)))
        await eventually(allowed)
        waited = not setting.done()
    await setting

    assert waited
    assert await use_of(world, tenant) == LimitsUse(running=2)
    assert await places(world, tenant) == (2, 0)


@pytest.mark.parametrize("seed", range(2))
async def test_limits_changed_again_and_again_stay_exact_while_jobs_start_and_end(world: World, seed: int) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant, "echo", count=60) + await world.insert(tenant, "scoring", count=60)
    workers = [await world.worker("echo", "scoring") for _ in range(3)]
    lasting = await world.insert(tenant, "scoring", count=4)
    async with world.engine.session() as session:
        await claim(world, session, workers[0], tenant, lasting, "scoring")
    over = asyncio.Event()

    async def work(number: int) -> None:
        """Claim some and end them, until the limits have changed often enough."""
        mine = jobs[number::3]
        turn = seed
        async with world.engine.session() as session:
            while not over.is_set():
                turn += 1
                some = [mine[(turn * 7 + step) % len(mine)] for step in range(5)]
                claims = await claim(world, session, workers[number], tenant, sorted(set(some)), "echo", "scoring")
                ended = [succeeded(tenant, job.job_id, job.fence) for job in claims.claimed[::2]]
                await finish_jobs(session, workers[number], ended)

    running = [asyncio.create_task(work(number)) for number in range(3)]
    try:
        for round_ in range(4):
            limits = Limits(
                concurrency=None if round_ == 1 else 40, types={"scoring": TypeLimits(concurrency=10 + round_)}
            )
            await set_limits(world.engine, tenant, limits)
    finally:
        over.set()
        await asyncio.gather(*running)

    use = await use_of(world, tenant)
    held = await places(world, tenant)
    left = await world.superuser.fetch(
        "SELECT job_id, fence, worker_id FROM jobs WHERE tenant_id = $1 AND state = 3", tenant
    )
    async with world.engine.session() as session:
        for row in left:
            await finish_jobs(session, row["worker_id"], [succeeded(tenant, row["job_id"], row["fence"])])

    assert (use.running, use.types["scoring"].running) == held
    assert held[1] >= len(lasting)
    assert held[0] == len(left) >= len(lasting)
    assert await use_of(world, tenant) == LimitsUse(running=0, types={"scoring": TypeUse(running=0)})


async def test_limits_are_replaced_as_a_whole_and_their_rows_stay(world: World) -> None:
    tenant = await world.tenant()
    first = Limits(
        concurrency=3,
        starts_per_minute=60,
        submits_per_minute=500,
        weight=4,
        types={"scoring": TypeLimits(concurrency=2, starts_per_minute=10), "never-seen": TypeLimits(concurrency=1)},
    )
    second = Limits(starts_per_minute=5, types={"never-seen": TypeLimits(starts_per_minute=7)})

    await set_limits(world.engine, tenant, first)
    one = await read_limits(world.engine, tenant)
    await set_limits(world.engine, tenant, second)
    other = await read_limits(world.engine, tenant)
    await set_limits(world.engine, tenant, Limits())
    none = await read_limits(world.engine, tenant)

    assert one is not None
    assert one[0] == first
    assert one[1] == LimitsUse(
        running=0,
        starts=0,
        submits=0,
        types={"scoring": TypeUse(running=0, starts=0), "never-seen": TypeUse(running=0)},
    )
    assert other == (second, LimitsUse(starts=0, types={"never-seen": TypeUse(starts=0)}))
    assert none == (Limits(), LimitsUse())
    assert await world.superuser.fetchval("SELECT count(*) FROM gates WHERE tenant_id = $1", tenant) == 4
    assert await read_limits(world.engine, new_id()) is None


async def test_a_limit_taken_away_lets_everyone_pass_and_set_again_counts_them(world: World) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant, count=5)
    worker = await world.worker("echo")
    async with world.engine.session() as session:
        await set_limits(world.engine, tenant, Limits(concurrency=1))
        await claim(world, session, worker, tenant, jobs[:1])
        await set_limits(world.engine, tenant, Limits())
        free = await claim(world, session, worker, tenant, jobs[1:4])
        await set_limits(world.engine, tenant, Limits(concurrency=4))
        full = await claim(world, session, worker, tenant, jobs[4:])

    assert len(free.claimed) == 3
    assert not full.claimed
    assert await use_of(world, tenant) == LimitsUse(running=4)
    assert await places(world, tenant) == (4, 0)


async def test_starts_are_shown_as_long_as_they_count(world: World) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant, count=3)
    worker = await world.worker("echo")
    await set_limits(world.engine, tenant, Limits(starts_per_minute=2))
    async with world.engine.session() as session:
        claims = await claim(world, session, worker, tenant, jobs)
    counting = await use_of(world, tenant)

    await world.superuser.execute(
        "UPDATE gates SET log_at = (SELECT array_agg(at - $2::interval) FROM unnest(log_at) AS at)"
        " WHERE tenant_id = $1",
        tenant,
        timedelta(seconds=60),
    )

    assert len(claims.claimed) == 2
    assert counting == LimitsUse(starts=2)
    assert await use_of(world, tenant) == LimitsUse(starts=0)


async def test_a_new_weight_is_announced_and_an_equal_one_is_not(world: World) -> None:
    tenant = await world.tenant()

    async def revision() -> int:
        number: int = await world.superuser.fetchval("SELECT revision FROM revisions WHERE name = 'sharing'")
        return number

    revisions = [await revision()]
    for weight in (1, 3, 3, 1):
        await set_limits(world.engine, tenant, Limits(weight=weight))
        revisions.append(await revision() - revisions[0])

    assert revisions[1:] == [0, 1, 1, 2]


async def test_limits_set_by_several_at_once_are_those_of_one_of_them(world: World) -> None:
    tenant = await world.tenant()
    jobs = await world.insert(tenant, "scoring", count=3)
    worker = await world.worker("scoring")
    async with world.engine.session() as session:
        await claim(world, session, worker, tenant, jobs, "scoring")
    given = [Limits(concurrency=n, types={"scoring": TypeLimits(concurrency=n)}) for n in range(1, 6)]

    await asyncio.gather(*[set_limits(world.engine, tenant, limits) for limits in given])

    found = await read_limits(world.engine, tenant)
    assert found is not None
    assert found[0] in given
    assert found[1] == LimitsUse(running=3, types={"scoring": TypeUse(running=3)})
