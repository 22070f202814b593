"""Who holds a job, and how it is let go: limits, cancels, lost leases, lost answers, the drain."""

import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from barnabas.postgres.database import Database
from barnabas.runtime.crash_points import CrashPoint
from barnabas_worker.recall import recall_batches, recall_once
from tests.integration.worker.conftest import StartWorker
from tests.support import handlers
from tests.support.eventually import eventually
from tests.support.turns import claim_jobs
from tests.support.world import World, new_id


async def test_no_more_jobs_run_at_once_than_the_tenant_may(world: World, start_worker: StartWorker) -> None:
    limited, free = await world.tenant(running_at_most=2), await world.tenant()
    await start_worker()
    jobs = await world.submit(limited, "wait_for_ever", count=10)
    await world.submit(free, "count", count=10)
    await world.until(free, succeeded=10)
    await world.until(limited, running=2, queued=8)
    # Claimed in Postgres is not yet begun here, and queued not yet in line.
    await eventually(
        lambda: world.superuser.fetchval("SELECT count(*) FROM waiting WHERE tenant_id = $1", limited),
        until=lambda count: count == 8,
    )
    begun = await eventually(lambda: sum(handlers.started.get(str(job), 0) for job in jobs), until=lambda n: n >= 2)

    assert begun == 2
    assert await world.states(limited) == {"running": 2, "queued": 8}


async def test_parked_jobs_follow_as_others_end(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant(running_at_most=2)
    await start_worker()
    await world.submit(tenant, "count", count=30)

    await world.until(tenant, succeeded=30)

    assert await world.superuser.fetchval("SELECT used FROM gates WHERE tenant_id = $1", tenant) == 0
    assert await world.superuser.fetchval("SELECT count(*) FROM waiting") == 0


async def test_a_cancel_reaches_a_running_handler(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    await start_worker(CANCEL_GRACE_SECONDS="0.1")
    (job,) = await world.submit(tenant, "wait_for_ever")
    await world.until(tenant, running=1)

    await world.engine.fetchrow("cancel_job", tenant, job)

    await world.until(tenant, cancelled=1)


async def test_a_worker_that_lost_its_lease_goes_on_under_a_new_id(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    worker = await start_worker()
    assert worker.resources is not None
    identity = worker.resources.identity
    await world.submit(tenant, "wait_for_ever")
    await world.until(tenant, running=1)
    before = identity.worker_id

    await world.superuser.execute("UPDATE workers SET lease_until = now() - interval '1 second'")
    await eventually(lambda: identity.alive and identity.worker_id != before)
    await world.submit(tenant, "count", count=3)

    # What it ran under the old id it handed back itself; nobody else had taken it.
    await eventually(lambda: world.states(tenant), until=lambda states: states.get("succeeded") == 3)
    assert "failed" not in await world.states(tenant)


async def test_jobs_of_a_claim_whose_answer_was_lost_are_handed_back(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    # Its own recall would now and then be the first.
    worker = await start_worker(without=[recall_batches])
    assert worker.resources is not None
    identity = worker.resources.identity
    (job,) = await world.insert(tenant, "count")
    async with world.engine.session() as session:
        await claim_jobs(session, identity.worker_id, new_id(), [(tenant, job)], {await world.type_id("count"): 60_000})

    assert await recall_once(worker.resources) == 1
    row = await world.superuser.fetchrow("SELECT state, attempt, losses FROM jobs WHERE job_id = $1", job)

    assert tuple(row) == (2, 0, 0)
    assert await world.superuser.fetchval("SELECT count(*) FROM lease_batches") == 0


class _SlowAnswer:
    """A database whose first list of batches is on its way for as long as `meanwhile` takes."""

    def __init__(self, database: Database, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        rows = await self._database.fetch(statement, *arguments)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


async def test_a_job_that_was_claimed_again_while_the_recall_asked_stays_where_it_runs(
    world: World, start_worker: StartWorker
) -> None:
    tenant = await world.tenant()
    worker = await start_worker(without=[recall_batches])
    resources = worker.resources
    assert resources is not None
    gate = handlers.gates[str(tenant)] = threading.Event()
    (job,) = await world.submit(tenant, "snooze_then_wait", json.dumps({"gate": str(tenant)}).encode())
    await eventually(lambda: handlers.started.get(str(job), 0), timeout=60)

    async def runs_again() -> None:
        first = resources.holdings.jobs[job].batch_id
        gate.set()
        await eventually(
            lambda: world.superuser.fetchval("SELECT due_at <= now() FROM jobs WHERE job_id = $1 AND state <> 3", job),
            timeout=60,
        )
        # Nobody else is there to bring what is due.
        await world.publish(tenant, [job])
        await eventually(lambda: handlers.started[str(job)], until=lambda count: count == 2, timeout=60)
        await eventually(lambda: not resources.holdings.knows(first), timeout=60)

    slow = cast("Database", _SlowAnswer(resources.database, runs_again))
    handed_back = await recall_once(replace(resources, database=slow))
    row = await world.superuser.fetchrow("SELECT state, fence FROM jobs WHERE job_id = $1", job)

    assert handed_back == 0
    assert tuple(row) == (3, 2)


async def test_a_drain_hands_back_what_does_not_end_and_charges_nothing(
    world: World, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the drain's time this much is for the hand-back, however slow the machine.
    monkeypatch.setattr("barnabas_worker.turns._HAND_BACK_SECONDS", 60.0)
    tenant = await world.tenant()
    worker = await start_worker(DRAIN_SECONDS="61")
    jobs = await world.submit(tenant, "wait_for_ever", count=4)
    await world.until(tenant, running=4)

    code = await worker.end()

    assert code == 0
    await _assert_handed_back(world, jobs)


async def test_a_drain_hands_back_what_a_claim_brings_that_was_on_its_way(
    world: World, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barnabas_worker.turns._HAND_BACK_SECONDS", 60.0)
    reached: list[CrashPoint] = []
    monkeypatch.setattr("barnabas_worker.turns.reach", reached.append)
    tenant = await world.tenant(running_at_most=4)
    jobs = await world.insert(tenant, "wait_for_ever", count=4)
    worker = await start_worker(DRAIN_SECONDS="61")
    async with world.superuser.transaction():
        await world.superuser.fetch("SELECT 1 FROM gates WHERE tenant_id = $1 FOR UPDATE", tenant)
        await world.publish(tenant, jobs)
        await eventually(lambda: world.superuser.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        worker.stop.set()
        # Its patience with what still runs is over.
        await eventually(lambda: CrashPoint.WORKER_BEFORE_HAND_BACK in reached)

    code = await worker.ended()

    assert code == 0
    await _assert_handed_back(world, jobs)


async def test_an_idle_worker_leaves_no_rows_behind(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    await start_worker()
    await world.submit(tenant, "count", count=200)
    await world.until(tenant, succeeded=200)

    async def rows() -> tuple[int, int]:
        return (
            await world.superuser.fetchval("SELECT count(*) FROM outbox"),
            await world.superuser.fetchval("SELECT count(*) FROM lease_batches"),
        )

    assert await eventually(rows, until=lambda counts: counts == (0, 0)) == (0, 0)


async def _assert_handed_back(world: World, jobs: list[UUID]) -> None:
    """All are queued again at nobody's cost, and nothing is left of who held them."""
    rows = await world.superuser.fetch("SELECT state, attempt, losses FROM jobs WHERE job_id = ANY ($1)", jobs)
    assert {tuple(row) for row in rows} == {(2, 0, 0)}
    assert await world.superuser.fetchval("SELECT count(*) FROM workers") == 0
    assert await world.superuser.fetchval("SELECT count(*) FROM lease_batches") == 0
