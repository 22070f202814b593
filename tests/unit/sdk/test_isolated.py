"""Attempts in child processes: real ones, killed for real."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from barnabas.domain.attempts import Cancelled, HandedBack, Lost, Outcome, Snoozed, Succeeded, TimedOut
from barnabas.sdk import child, isolated
from barnabas.sdk.context import Progress
from barnabas.sdk.processes import ChildProcesses
from barnabas.sdk.running import Interruption
from tests.support.eventually import eventually
from tests.unit.sdk.builders import JOB_ID, TENANT_ID, context, raised
from tests.unit.sdk.pools import PATIENCE_SECONDS, a_pool, attempt, close, ran, result
from tests.unit.sdk.watching import lives, written


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt is over when its process is, however long a starved machine takes to end one."""
    monkeypatch.setattr(isolated, "_EXIT_SECONDS", PATIENCE_SECONDS)


@pytest.fixture(scope="module", params=[True, False], ids=["forked", "executed"])
async def children(request: pytest.FixtureRequest) -> AsyncIterator[ChildProcesses]:
    """One pool for all: loading the handlers takes most of a second."""
    async with a_pool(forks=request.param) as pool:
        yield pool


async def interrupted(
    children: ChildProcesses, job_type: str, path: Path, *reasons: Interruption, **more: Any
) -> Outcome:
    """Run until the handler has written to `path`, then interrupt."""
    one = attempt(children, job_type, str(path), **more)
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        running = group.create_task(one.run())
        await written(path)
        for reason in reasons:
            one.interrupt(reason)
    return running.result().outcome


async def overdue(children: ChildProcesses, job_type: str, path: Path) -> Outcome:
    """Run until the handler has written to `path`, and have its deadline come then: however late it has begun."""
    one = attempt(children, job_type, str(path))
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        running = group.create_task(one.run())
        await written(path)
        one.ctx.deadline_monotonic = time.monotonic()
        one.interrupt(Interruption.TIMEOUT)
    return running.result().outcome


async def test_the_handler_runs_in_another_process_which_is_used_again(children: ChildProcesses) -> None:
    first, second = result(await ran(children, "pid")), result(await ran(children, "pid"))

    assert first == second != os.getpid()


async def test_the_child_knows_what_the_worker_knows(children: ChildProcesses) -> None:
    ctx = context(attempt=3, losses=1, metadata={"team": "risk"})

    assert result(await ran(children, "seen", {"n": 1}, ctx=ctx)) == {
        "payload": {"n": 1},
        "attempt": 3,
        "losses": 1,
        "metadata": {"team": "risk"},
        "job": str(JOB_ID),
    }


async def test_built_in_handlers_run_there_too_and_payloads_are_checked(children: ChildProcesses) -> None:
    assert result(await ran(children, "echo", {"a": "x" * 500_000})) == {"a": "x" * 500_000}
    assert raised(await ran(children, "sleep", {"seconds": "soon"})).code == "payload_invalid"
    assert raised(await ran(children, "permanent")).code == "never"


async def test_what_a_handler_prints_does_not_mix_with_its_result(children: ChildProcesses) -> None:
    assert result(await ran(children, "noisy")) == "said"


async def test_progress_comes_over_the_wire_and_the_last_report_is_not_lost(children: ChildProcesses) -> None:
    reports: list[Progress] = []
    await ran(children, "progress", ctx=context(on_progress=reports.append))

    assert reports[-1] == Progress(100.0, "step 100")
    assert len(reports) < 50


@pytest.mark.parametrize("job_type", ["die", "exit"])
async def test_a_child_that_dies_is_a_loss_and_the_next_attempt_gets_another(
    children: ChildProcesses, job_type: str
) -> None:
    before = result(await ran(children, "pid"))

    assert await ran(children, job_type) == Lost()
    assert result(await ran(children, "pid")) != before


async def test_the_built_in_crash_counts_its_losses_and_then_succeeds(children: ChildProcesses) -> None:
    payload = {"times": 2, "error": "crash"}
    outcomes = [await ran(children, "fail", payload, ctx=context(losses=losses)) for losses in (0, 1, 2)]

    assert [type(outcome) for outcome in outcomes] == [Lost, Lost, Succeeded]


async def test_a_handler_that_ignores_sigterm_is_really_dead_at_its_deadline(
    children: ChildProcesses, tmp_path: Path
) -> None:
    path = tmp_path / "pid"

    outcome = await overdue(children, "stubborn", path)

    assert outcome == TimedOut(600)
    assert not psutil.pid_exists(int(path.read_text()))


async def test_an_attempt_keeps_its_own_deadline(children: ChildProcesses, tmp_path: Path) -> None:
    assert await ran(children, "stubborn", str(tmp_path / "pid"), timeout=0.3) == TimedOut(0.3)


@pytest.mark.parametrize("job_type", ["tidy", "tidy_async"])
async def test_a_killed_handler_may_clean_up(
    children: ChildProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job_type: str
) -> None:
    path = tmp_path / "state"
    monkeypatch.setattr(child, "TERMINATE_SECONDS", PATIENCE_SECONDS)

    assert await overdue(children, job_type, path) == TimedOut(600)
    assert path.read_text() == "cleaned up"


async def test_what_a_handler_has_started_dies_with_it(children: ChildProcesses, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    outcome = await interrupted(children, "family", path, Interruption.DRAIN)
    grandchild = int(path.read_text())

    assert outcome == HandedBack()
    await eventually(lambda: lives(grandchild), until=lambda alive: not alive)


async def test_a_cancelled_handler_that_obeys_keeps_its_child(children: ChildProcesses, tmp_path: Path) -> None:
    before = result(await ran(children, "pid"))

    assert await interrupted(children, "obeys", tmp_path / "state", Interruption.CANCEL, grace=20) == Cancelled()
    assert result(await ran(children, "pid")) == before


async def test_a_cancelled_handler_that_does_not_look_is_killed_after_the_grace(
    children: ChildProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "TERMINATE_SECONDS", PATIENCE_SECONDS)
    for job_type in ("tidy", "tidy_async"):
        path = tmp_path / job_type

        assert await interrupted(children, job_type, path, Interruption.CANCEL) == Cancelled()
        assert path.read_text() == "cleaned up"


async def test_a_time_out_by_the_workers_own_count_comes_too_early_and_is_ignored(
    children: ChildProcesses, tmp_path: Path
) -> None:
    outcome = await interrupted(
        children, "obeys", tmp_path / "state", Interruption.TIMEOUT, Interruption.CANCEL, grace=20
    )

    assert outcome == Cancelled()


async def test_a_cancellation_from_outside_passes_and_kills(children: ChildProcesses, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    task = asyncio.ensure_future(attempt(children, "stubborn", str(path)).run())
    await written(path)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    pid = int(path.read_text())
    await eventually(lambda: lives(pid), until=lambda alive: not alive)


async def test_an_attempt_without_room_is_handed_back_when_its_worker_drains(
    children: ChildProcesses, tmp_path: Path
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    busy = [attempt(children, "stubborn", str(path)) for path in paths]
    waiting = attempt(children, "pid")
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        running = [group.create_task(one.run()) for one in busy]
        for path in paths:
            await written(path)
        last = group.create_task(waiting.run())
        await asyncio.sleep(0)
        for one in (waiting, *busy):
            one.interrupt(Interruption.DRAIN)

    assert {task.result().outcome for task in (*running, last)} == {HandedBack()}
    assert result(await ran(children, "pid"))


async def test_a_child_with_a_memory_peak_is_not_used_again() -> None:
    async with a_pool(running_max=1, retire_above_bytes=200 << 20) as pool:
        first = result(await ran(pool, "pid"))
        assert result(await ran(pool, "hog", 1 << 20)) == 1 << 20
        assert result(await ran(pool, "pid")) == first
        assert result(await ran(pool, "hog", 300 << 20)) == 300 << 20

        assert result(await ran(pool, "pid")) != first


@pytest.mark.parametrize("forks", [True, False])
async def test_an_app_that_the_child_cannot_load_is_an_error_that_says_why(forks: bool) -> None:
    async with a_pool(app="tests.unit.sdk.no_such_module:app", forks=forks) as pool:
        outcome = raised(await ran(pool, "pid"))

    assert (outcome.code, outcome.retryable) == ("child_not_started", True)
    assert "no_such_module" in outcome.message


async def test_a_closed_pool_leaves_no_process_idle_or_hung(tmp_path: Path) -> None:
    async with a_pool() as pool:
        idle = result(await ran(pool, "pid"))
        path = tmp_path / "pid"
        busy = attempt(pool, "stubborn", str(path))
        task = asyncio.ensure_future(busy.run())
        await written(path)

        await close(pool)
        run = await task

    assert run.outcome == Lost()
    assert not any(psutil.pid_exists(pid) for pid in (idle, int(path.read_text())))


async def test_an_attempt_that_finds_no_room_in_time_is_handed_back(tmp_path: Path) -> None:
    async with a_pool(running_max=1, wait_seconds=0.05) as pool:
        # No process starts that fast: the first waits for its start in vain, the second for room.
        outcomes = tuple(await asyncio.gather(ran(pool, "pid"), ran(pool, "pid")))

    assert outcomes == (HandedBack(), HandedBack())


async def test_a_start_that_outlasts_its_attempts_patience_serves_the_next_one() -> None:
    """On a busy machine every start outlasts it: thrown away each time, none would ever be of use."""
    async with a_pool(running_max=1, wait_seconds=0.05) as pool:
        assert await ran(pool, "pid") == HandedBack()
        outcome = await eventually(lambda: ran(pool, "pid"), until=lambda outcome: outcome != HandedBack(), timeout=120)
        pids = {outcome.result, *[(await ran(pool, "pid")).result for _ in range(3)]}  # type: ignore[union-attr]

        assert len(pids) == 1


async def test_children_start_few_at_a_time_and_those_that_wait_share_them() -> None:
    async with a_pool(running_max=8, starting_max=1, forks=False) as pool:
        tasks = [asyncio.ensure_future(ran(pool, "pid")) for _ in range(8)]
        await eventually(lambda: pool.alive)
        at_first = pool.alive
        await asyncio.gather(*tasks)

        assert at_first == 1
        # The first was ready long before the second, and eight short attempts need not one each.
        assert pool.alive < 8


async def test_an_app_that_starts_threads_as_it_is_imported_is_never_forked() -> None:
    async with a_pool(app="tests.unit.sdk.threaded_app:app", running_max=4, unforked_max=2) as pool:
        before = pool.room
        pids = {result(await ran(pool, "pid")) for _ in range(2)}
        parents = {psutil.Process(pid).ppid() for pid in pids}

        assert parents == {os.getpid()}
        # Each of them has the handlers in memory of its own.
        assert (before, pool.room) == (4, 2)


async def test_children_are_forked_from_one_template_which_is_started_anew_when_it_has_died(tmp_path: Path) -> None:
    async with a_pool() as pool:
        path = tmp_path / "pid"
        busy = asyncio.ensure_future(attempt(pool, "stubborn", str(path)).run())
        pids = [int(await written(path)), result(await ran(pool, "pid"))]
        templates = {psutil.Process(pid).ppid() for pid in pids}
        (template,) = templates
        psutil.Process(template).kill()
        outcome = (await busy).outcome
        after = psutil.Process(result(await ran(pool, "pid"))).ppid()

    assert outcome == Lost()
    assert len({template, after, os.getpid()}) == 3
    await eventually(lambda: [pid for pid in (*pids, template, after) if lives(pid)], until=lambda left: not left)


async def test_an_attempt_that_finds_a_long_line_is_put_off_and_holds_no_slot(tmp_path: Path) -> None:
    async with a_pool(running_max=1) as pool:
        busy = attempt(pool, "stubborn", str(tmp_path / "pid"))
        line = [attempt(pool, "pid") for _ in range(2)]
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            tasks = [group.create_task(busy.run())]
            await written(tmp_path / "pid")
            tasks += [group.create_task(one.run()) for one in line]
            await eventually(lambda: pool.is_crowded_for(TENANT_ID))
            late = await ran(pool, "pid")
            for one in (*line, busy):
                one.interrupt(Interruption.DRAIN)

        assert late == Snoozed(2.0)
        assert {task.result().outcome for task in tasks} == {HandedBack()}
        assert not pool.is_crowded_for(TENANT_ID)
