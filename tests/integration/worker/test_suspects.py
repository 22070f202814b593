"""Jobs that were lost with the process that they ran in: where they run again."""

import os
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from barnabas.domain.attempts import AttemptKind
from barnabas.postgres.turns import Releasing
from tests.integration.worker.conftest import StartWorker
from tests.support.eventually import eventually
from tests.support.turns import claim_jobs, release_jobs
from tests.support.world import World, new_id


async def lost_jobs(world: World, tenant: UUID, directory: Path, *, count: int, losses: int) -> list[UUID]:
    """Jobs that say in which process they run, each of which lost that many."""
    jobs = await world.insert(tenant, "say_where", str(directory).join('""').encode(), count=count)
    type_id = await world.type_id("say_where")
    worker = await world.worker("say_where")
    for _ in range(losses):
        async with world.engine.session() as session:
            batch = new_id()
            claims = await claim_jobs(session, worker, batch, [(tenant, job) for job in jobs], {type_id: 600_000})
            assert len(claims.claimed) == count
            lost = [Releasing(tenant, job.job_id, job.fence, AttemptKind.LOSS) for job in claims.claimed]
            await release_jobs(session, worker, lost, batches=[batch])
    await world.publish(tenant, jobs)
    return jobs


async def where(directory: Path, jobs: list[UUID]) -> Counter[int]:
    """The process of each, once all of them run."""
    files = [directory / str(job) for job in jobs]
    await eventually(lambda: all(file.exists() for file in files), timeout=120)
    return Counter(int(file.read_text()) for file in files)


@pytest.mark.parametrize(("losses", "here"), [(0, 5), (1, 3), (2, 0)])
async def test_a_lost_job_runs_alone_while_there_is_room_and_after_a_second_loss_always(
    world: World, start_worker: StartWorker, tmp_path: Path, losses: int, here: int
) -> None:
    tenant = await world.tenant()
    jobs = await lost_jobs(world, tenant, tmp_path, count=5, losses=losses)
    # Enough for all of them where they may not run with others; room for two of five where they may.
    await start_worker(SUSPECTS="5" if losses > 1 else "2")

    ran = await where(tmp_path, jobs)
    (tmp_path / "go").touch()
    await world.until(tenant, succeeded=5)

    assert ran.pop(os.getpid(), 0) == here
    assert set(ran.values()) <= {1}
