"""Single faults, each on the whole system: what a tenant notices of them, and that it heals by itself."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from barnabas.client.api import AsyncClient
from barnabas.client.models import Job
from tests.support.eventually import eventually
from tests.support.stack import Stack, open_stack

pytestmark = pytest.mark.timeout(900)

# Long enough for all of them to be seen running at one moment, however slowly a busy machine starts and answers.
_JOB_SECONDS = 12
_LEASE_SECONDS = 10
# Of it the product needs five; the rest is for a busy machine, which starts two workers and a child for each job then.
_SOON_SECONDS = 40


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    """A system of this module's own, with two workers: the tests here harm it."""
    async with open_stack(workers=2) as running:
        yield running


@pytest.fixture
async def client(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    """A client of a new tenant."""
    _, key = await stack.tenant(request.node.name)
    async with stack.client(key) as opened:
        yield opened


async def submit(client: AsyncClient, count: int, job_type: str = "echo", payload: object = 1) -> list[UUID]:
    verdicts = await client.submit_batch([{"type": job_type, "payload": payload} for _ in range(count)])
    return [verdict.id for verdict in verdicts if verdict.id is not None]


async def ended(client: AsyncClient, ids: list[UUID], *, seconds: float = 180) -> list[Job]:
    return [await client.wait(job_id, timeout=seconds) for job_id in ids]


async def running(client: AsyncClient, ids: list[UUID]) -> None:
    async def states() -> set[str]:
        return {(await client.get(job_id)).status for job_id in ids}

    await eventually(states, until=lambda found: found == {"running"})


async def test_the_jobs_of_a_killed_worker_run_again_soon_after_its_lease(stack: Stack, client: AsyncClient) -> None:
    ids = await submit(client, 6, "sleep", {"seconds": _JOB_SECONDS})
    async with stack.database() as database:
        await running(client, ids)
        for name in ("worker", "worker-2"):
            await stack.kill(name)
        killed_at = await database.fetchval("SELECT clock_timestamp()")
        jobs = await ended(client, ids)

    assert {job.status for job in jobs} == {"succeeded"}
    assert {job.attempt for job in jobs} == {1}
    delays = [(job.started_at - killed_at).total_seconds() for job in jobs if job.started_at is not None]
    print(f"started again after {min(delays):.1f} to {max(delays):.1f} s")
    assert max(delays) < _LEASE_SECONDS + _SOON_SECONDS


async def test_jobs_are_accepted_while_kafka_stands_still_and_run_when_it_is_back(
    stack: Stack, client: AsyncClient
) -> None:
    stopped = stack.signal("kafka", signal.SIGSTOP)
    try:
        ids = await submit(client, 300)
        single = await client.submit("echo", 2)
    finally:
        os.kill(stopped, signal.SIGCONT)
    jobs = await ended(client, [*ids, single.id])

    assert len(ids) == 300
    assert {job.status for job in jobs} == {"succeeded"}


async def test_jobs_whose_records_were_wiped_with_kafka_run_all_the_same(stack: Stack, client: AsyncClient) -> None:
    workers = [stack.signal(name, signal.SIGSTOP) for name in ("worker", "worker-2")]
    try:
        ids = await submit(client, 300)
        async with stack.database() as database:
            # Their records have reached Kafka.
            await eventually(
                lambda: database.fetchval("SELECT count(*) FROM outbox WHERE ref_ids && $1::uuid[]", ids),
                until=lambda rows: rows == 0,
            )
        data = stack.directory / "kafka" / "log"
        # It stands still meanwhile, and the supervisor finds no data when it starts another one.
        stack.signal("kafka", signal.SIGSTOP)
        await asyncio.to_thread(shutil.move, data, stack.directory / "kafka-wiped")
        stack.signal("kafka", signal.SIGKILL)
        await eventually(lambda: (data / "meta.properties").exists(), timeout=120)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    jobs = await ended(client, ids)

    assert {job.status for job in jobs} == {"succeeded"}


async def test_a_restart_of_postgres_neither_loses_nor_doubles_a_running_job(stack: Stack, client: AsyncClient) -> None:
    ids = await submit(client, 6, "sleep", {"seconds": _JOB_SECONDS})
    await running(client, ids)
    await stack.kill("postgres")
    jobs = await ended(client, ids)
    timelines = [await client.attempts(job_id) for job_id in ids]

    assert {job.status for job in jobs} == {"succeeded"}
    assert [[line.kind for line in timeline.items] for timeline in timelines] == [["attempt"]] * 6


async def test_a_worker_that_is_told_to_stop_hands_its_jobs_back_uncharged(stack: Stack, client: AsyncClient) -> None:
    ids = await submit(client, 4, "sleep", {"seconds": 120})
    await running(client, ids)
    for name in ("worker", "worker-2"):
        stack.signal(name, signal.SIGTERM)

    async def handed_back() -> int:
        timelines = [await client.attempts(job_id) for job_id in ids]
        return sum(any(line.kind == "hand_back" for line in timeline.items) for timeline in timelines)

    await eventually(handed_back, until=lambda count: count == len(ids), timeout=120)
    await running(client, ids)
    jobs = [await client.get(job_id) for job_id in ids]
    for job_id in ids:
        await client.cancel(job_id)

    assert {job.attempt for job in jobs} == {1}
