"""Processes for handlers with `isolate="process"`: whose turn it is while one tenant's long runs hold all of them."""

from pathlib import Path
from uuid import UUID

from barnabas.domain.jobs import JobState
from tests.integration.worker.conftest import StartWorker
from tests.support.eventually import eventually
from tests.support.world import World


async def ran(directory: Path, *, count: int) -> list[UUID]:
    """Which jobs have begun, in their order, once there are so many."""
    file = directory / "ran"
    lines = await eventually(
        lambda: file.read_text().splitlines() if file.exists() else [],
        until=lambda lines: len(lines) >= count,
        timeout=120,
    )
    return [UUID(line) for line in lines]


async def test_a_single_job_runs_next_after_the_long_run_of_a_tenant_with_many_though_it_was_handed_back_meanwhile(
    world: World, start_worker: StartWorker, tmp_path: Path
) -> None:
    payload = f'"{tmp_path}"'.encode()
    many, one = await world.tenant(), await world.tenant()
    await start_worker(APP="tests.support.isolated_handlers:app", CHILDREN="1")
    await world.submit(many, "hold", payload, count=40)
    (long,) = await ran(tmp_path, count=1)
    # All but those in line are put off: the worker has seen the whole backlog.
    await eventually(lambda: world.states(many), until=lambda states: states.get("scheduled", 0) >= 37)
    (single,) = await world.submit(one, "hold", payload)

    # It finds no place in six seconds, is handed back, and waits again.
    await eventually(
        lambda: world.job(one, single), until=lambda job: job.state is JobState.RUNNING and job.fence >= 2, timeout=120
    )
    (tmp_path / f"{long}.end").touch()
    begun = await ran(tmp_path, count=2)

    (tmp_path / f"{single}.end").touch()
    await world.until(one, succeeded=1)
    after = await ran(tmp_path, count=3)

    assert begun == [long, single]
    # The one with many goes on then.
    assert len(set(after)) == 3
