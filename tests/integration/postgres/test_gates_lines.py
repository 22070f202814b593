"""Lines at a tenant's gate and at those of its types: who couldn't start holds up nobody who could."""

from uuid import UUID

from barnabas.domain.gates import LineKind
from barnabas.domain.jobs import Hook, JobState
from barnabas.domain.limits import Limits, TypeLimits
from barnabas.postgres.database import Session
from barnabas.postgres.gates import set_limits
from barnabas.postgres.turns import Finishing
from tests.support.turns import claim_jobs, finish_jobs, wake_waiting
from tests.support.world import World, new_id


async def claim(world: World, session: Session, worker: UUID, tenant: UUID, jobs: list[UUID]) -> list[UUID]:
    """Ask for these jobs; who has started."""
    types = {await world.type_id(name): 60_000 for name in ("echo", "scoring")}
    claims = await claim_jobs(session, worker, new_id(), [(tenant, job) for job in sorted(jobs)], types)
    return sorted(job.job_id for job in claims.claimed)


async def end(session: Session, worker: UUID, tenant: UUID, job: UUID) -> list[UUID]:
    """End a job; who was called."""
    finishing = Finishing(tenant, job, 1, JobState.SUCCEEDED, new_id(), result=b"1")
    turned = await finish_jobs(session, worker, [finishing])
    return sorted(called.job_id for jobs in turned.told.values() for called in jobs)


async def call(session: Session, tenant: UUID) -> list[UUID]:
    """Call whom a tenant's gates have room for, as the sweep does."""
    return sorted(job.job_id for job in await wake_waiting(session, [tenant]))


async def seat(world: World, tenant: UUID, jobs: list[UUID]) -> None:
    """Let jobs wait at their tenant's gate in this order, whatever has room."""
    await world.superuser.execute(
        "INSERT INTO waiting (tenant_id, kind, precedence, job_id)"
        " SELECT $1, 1, 2, t.job_id FROM unnest($2::uuid[]) AS t (job_id)",
        tenant,
        jobs,
    )
    await world.superuser.execute("UPDATE jobs SET hooks = hooks | $2 WHERE job_id = ANY ($1)", jobs, int(Hook.PARKED))
    await world.superuser.execute("UPDATE gates SET crowded = true WHERE tenant_id = $1 AND kind = 1", tenant)


async def lines(world: World, tenant: UUID, kind: LineKind) -> list[UUID]:
    """Who waits in the lines of a kind, in order."""
    rows = await world.superuser.fetch(
        "SELECT job_id FROM waiting WHERE tenant_id = $1 AND kind = $2 ORDER BY line, precedence, seq", tenant, kind
    )
    return [row["job_id"] for row in rows]


async def test_who_has_no_room_at_its_type_s_gate_holds_up_nobody_at_the_tenant_s(world: World) -> None:
    tenant = await world.tenant()
    await set_limits(world.engine, tenant, Limits(concurrency=2, types={"scoring": TypeLimits(concurrency=1)}))
    worker = await world.worker("echo", "scoring")
    x, y = await world.insert(tenant, "echo", count=2)
    scorings = await world.insert(tenant, "scoring", count=4)
    echoes = await world.insert(tenant, "echo", count=3)

    async with world.engine.session() as session:
        await claim(world, session, worker, tenant, [x, y])
        for job in scorings + echoes:
            await claim(world, session, worker, tenant, [job])
        seated = await lines(world, tenant, LineKind.TENANT)
        after_x = await end(session, worker, tenant, x)
        started = await claim(world, session, worker, tenant, after_x)
        after_y = await end(session, worker, tenant, y)
        started += await claim(world, session, worker, tenant, after_y)
        at_the_type_s = await lines(world, tenant, LineKind.TYPE)
        after_scoring = await end(session, worker, tenant, scorings[0])
        started += await claim(world, session, worker, tenant, after_scoring)

    assert seated == scorings + echoes
    assert (after_x, after_y) == (scorings[:1], echoes[:1])
    assert at_the_type_s == scorings[1:]
    # The oldest of the type is the next of all, since its place in the line went with it.
    assert started == [scorings[0], echoes[0], scorings[1]]
    assert await lines(world, tenant, LineKind.TENANT) == echoes[1:]


async def test_who_waits_behind_its_type_s_line_goes_there_although_its_gate_has_room(world: World) -> None:
    tenant = await world.tenant()
    await set_limits(world.engine, tenant, Limits(concurrency=3, types={"scoring": TypeLimits(concurrency=1)}))
    worker = await world.worker("echo", "scoring")
    first, second, third = await world.insert(tenant, "scoring", count=3)
    x, y, later = await world.insert(tenant, "echo", count=3)

    async with world.engine.session() as session:
        await claim(world, session, worker, tenant, [first, x, y])
        await claim(world, session, worker, tenant, [second])
        after_first = await end(session, worker, tenant, first)
        # The second is on its way from its type's line.
        await seat(world, tenant, [third, later])
        woken = await call(session, tenant)
        started = await claim(world, session, worker, tenant, [second])

    assert (after_first, woken) == ([second], [later])
    assert await lines(world, tenant, LineKind.TYPE) == [third]
    assert started == [second]


async def test_those_who_cannot_start_move_in_portions_and_only_when_they_are_in_the_way(world: World) -> None:
    tenant = await world.tenant()
    await set_limits(world.engine, tenant, Limits(concurrency=2, types={"scoring": TypeLimits(concurrency=1)}))
    worker = await world.worker("echo", "scoring")
    x, first, last = await world.insert(tenant, "echo", count=3)
    running, *scorings = await world.insert(tenant, "scoring", count=701)
    moved = []

    async with world.engine.session() as session:
        await claim(world, session, worker, tenant, [x, running])
        await seat(world, tenant, [first, *scorings, last])
        woken = [await end(session, worker, tenant, x)]
        moved.append(len(await lines(world, tenant, LineKind.TYPE)))
        await claim(world, session, worker, tenant, woken[-1])
        woken.append(await end(session, worker, tenant, first))
        moved.append(len(await lines(world, tenant, LineKind.TYPE)))
        await claim(world, session, worker, tenant, woken[-1])
        woken.append(await call(session, tenant))

    assert woken == [[first], [scorings[500]], [last]]
    assert moved == [0, 500]
    assert await lines(world, tenant, LineKind.TYPE) == scorings
    assert await lines(world, tenant, LineKind.TENANT) == [last]


async def test_a_type_s_gate_without_a_limit_lets_its_line_stand_where_it_is(world: World) -> None:
    tenant = await world.tenant()
    await set_limits(world.engine, tenant, Limits(concurrency=1, types={"scoring": TypeLimits(concurrency=1)}))
    await set_limits(world.engine, tenant, Limits(concurrency=1))
    worker = await world.worker("scoring")
    running, *scorings = await world.insert(tenant, "scoring", count=4)

    async with world.engine.session() as session:
        await claim(world, session, worker, tenant, [running])
        await claim(world, session, worker, tenant, scorings)
        woken = await end(session, worker, tenant, running)

    assert woken == scorings[:1]
    assert await lines(world, tenant, LineKind.TENANT) == scorings
