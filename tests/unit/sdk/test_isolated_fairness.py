"""Child processes between tenants: the long runs and the long line of one don't keep another's single job."""

import asyncio
from pathlib import Path
from uuid import UUID

from barnabas.domain.attempts import HandedBack, Outcome, Snoozed, Succeeded
from barnabas.sdk.isolated import IsolatedAttempt
from barnabas.sdk.processes import ChildProcesses
from barnabas.sdk.running import Interruption
from tests.support.eventually import eventually
from tests.unit.sdk.builders import context
from tests.unit.sdk.pools import PATIENCE_SECONDS, a_pool, attempt
from tests.unit.sdk.watching import written

MANY, ONE = (UUID(int=number) for number in (1, 2))


def of(pool: ChildProcesses, tenant_id: UUID, job_type: str = "pid", payload: object = None) -> IsolatedAttempt:
    return attempt(pool, job_type, payload, ctx=context(tenant_id=tenant_id))


async def test_a_neighbours_first_job_has_the_next_place_however_many_of_another_tenant_wait(tmp_path: Path) -> None:
    ended: list[UUID] = []

    async def run(one: IsolatedAttempt) -> Outcome:
        outcome = (await one.run()).outcome
        ended.append(one.ctx.tenant_id)
        return outcome

    async with a_pool(running_max=1) as pool:
        long = of(pool, MANY, "stubborn", str(tmp_path / "pid"))
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            running = group.create_task(run(long))
            await written(tmp_path / "pid")
            line = [group.create_task(run(of(pool, MANY))) for _ in range(2)]
            await eventually(lambda: pool.is_crowded_for(MANY))
            was_crowded = pool.is_crowded_for(ONE)
            single = group.create_task(run(of(pool, ONE)))
            # It asks for its place as soon as the loop gets to it.
            await asyncio.sleep(0)
            late = await run(of(pool, MANY))
            long.interrupt(Interruption.DRAIN)

    assert not was_crowded
    assert (late, running.result()) == (Snoozed(2.0), HandedBack())
    assert all(isinstance(task.result(), Succeeded) for task in (*line, single))
    assert ended == [MANY, MANY, ONE, MANY, MANY]


async def test_a_job_that_was_handed_back_while_long_runs_held_all_places_comes_again_before_their_tenants_next(
    tmp_path: Path,
) -> None:
    async with a_pool(running_max=1) as pool:
        long = of(pool, MANY, "stubborn", str(tmp_path / "pid"))
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            running = group.create_task(long.run())
            await written(tmp_path / "pid")
            line = [group.create_task(of(pool, MANY).run()) for _ in range(2)]
            await eventually(lambda: pool.is_crowded_for(MANY))
            pool.wait_seconds = 0.05
            early = (await of(pool, ONE).run()).outcome
            pool.wait_seconds = PATIENCE_SECONDS
            again = group.create_task(of(pool, ONE).run())
            await asyncio.sleep(0)
            long.interrupt(Interruption.DRAIN)
            await again
            were_waiting = [not task.done() for task in line]

    assert (early, running.result().outcome) == (HandedBack(), HandedBack())
    assert isinstance(again.result().outcome, Succeeded)
    assert were_waiting == [True, True]


async def test_the_places_are_shared_by_the_tenants_that_want_them(tmp_path: Path) -> None:
    async with a_pool(running_max=2) as pool:
        paths = [tmp_path / name for name in ("first", "second", "neighbours", "third")]
        first, second, third = (of(pool, MANY, "stubborn", str(paths[index])) for index in (0, 1, 3))
        neighbours = of(pool, ONE, "stubborn", str(paths[2]))
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            for one, path in ((first, paths[0]), (second, paths[1])):
                group.create_task(one.run())
                await written(path)
            waiting = [group.create_task(one.run()) for one in (third, neighbours, of(pool, ONE))]
            await asyncio.sleep(0)
            first.interrupt(Interruption.DRAIN)
            await written(paths[2])
            began = paths[3].exists()
            # Each has one place now, and the tenant whose turn is longest ago is the first one.
            second.interrupt(Interruption.DRAIN)
            await written(paths[3])
            neighbours.interrupt(Interruption.DRAIN)
            await waiting[2]
            third.interrupt(Interruption.DRAIN)

    assert not began
    assert [type(task.result().outcome) for task in waiting] == [HandedBack, HandedBack, Succeeded]
