"""The whole process: all loops together, at rest and at work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from barnabas.contract.telling import retry_record
from barnabas.contract.topics import DELAY_TIERS, JOBS, RETRIES
from barnabas.domain.attempts import AttemptKind
from barnabas.kafka.admin import Admin
from barnabas.postgres.turns import Releasing
from barnabas.runtime.service import EXIT_STOPPED, serve
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.main import SERVICE
from tests.integration.retry_scheduler.conftest import of_job, settings_for
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.turns import claim_jobs, release_jobs
from tests.support.world import World, new_id


@asynccontextmanager
async def running(world: World, **fields: object) -> AsyncIterator[None]:
    """The process, until the end of the block; it must then stop by itself."""
    stop = Stop()
    process = asyncio.create_task(serve(SERVICE, settings_for(world, **fields), stop))
    try:
        lead = "SELECT count(*) FROM leaders WHERE lease_until > clock_timestamp()"
        await eventually(lambda: world.superuser.fetchval(lead))
        yield
    finally:
        stop.set()
        assert await process == EXIT_STOPPED


async def test_at_rest_the_whole_process_asks_postgres_about_twice_a_second(world: World) -> None:
    committed = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    async with running(world):
        # A rate can only be seen over time; Postgres counts what the start cost up to ten seconds later.
        await asyncio.sleep(14)
        before, began = await world.superuser.fetchval(committed), asyncio.get_running_loop().time()
        await asyncio.sleep(12)
        after, ended = await world.superuser.fetchval(committed), asyncio.get_running_loop().time()

    rate = (after - before) / (ended - began)
    print(f"{rate:.2f} transactions a second")
    # Two, and what Postgres does on its own.
    assert rate <= 2.6


async def test_a_killed_workers_job_is_back_in_kafka_within_its_lease_and_five_seconds(world: World) -> None:
    async with running(world, lease_seconds=3.0), TopicReader(world.kafka, JOBS[1].name) as topic:
        tenant_id = await world.tenant()
        worker_id = await world.worker("echo", lease_seconds=3.0)
        (job_id,) = await world.submit(tenant_id)
        async with world.engine.session() as session:
            await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
        began = asyncio.get_running_loop().time()
        await topic.until(of_job(job_id, fence=1), timeout=10)
        took = asyncio.get_running_loop().time() - began

    print(f"back after {took:.1f} s")
    assert 3.0 <= took < 8.0


async def test_a_job_due_by_the_clock_starts_its_way_within_milliseconds(world: World) -> None:
    async with running(world), TopicReader(world.kafka, JOBS[1].name) as topic:
        tenant_id = await world.tenant()
        run_at = await world.now() + timedelta(seconds=2.5)
        (job_id,) = await world.insert(tenant_id, run_at=run_at)
        record = await topic.until(of_job(job_id), timeout=10)

    late = record.timestamp_ms / 1_000 - run_at.timestamp()
    print(f"late by {late * 1e3:.0f} ms")
    assert 0 <= late < 0.25


async def test_a_backoff_whose_record_is_lost_comes_back_by_its_timer(world: World) -> None:
    async with running(world), TopicReader(world.kafka, JOBS[1].name) as topic:
        tenant_id = await world.tenant()
        worker_id = await world.worker("echo")
        (job_id,) = await world.submit(tenant_id)
        due_at = await world.now() + timedelta(seconds=1)
        async with world.engine.transaction() as session:
            await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
            released = await release_jobs(
                session, worker_id, [Releasing(tenant_id, job_id, 1, AttemptKind.ATTEMPT, due_at)]
            )
            # Its writer believes that Kafka has it.
            await session.execute("delete_outbox", [released.later_outbox_id])
        record = await topic.until(of_job(job_id, fence=1), timeout=12)

    assert 5.0 <= record.timestamp_ms / 1_000 - due_at.timestamp() < 6.0


async def test_a_wiped_kafka_is_filled_again_without_a_restart(world: World) -> None:
    tenant_id = await world.tenant()
    names = [topic.name for topic in (*JOBS, RETRIES, *DELAY_TIERS)]
    async with running(world), Admin(world.kafka) as admin:
        known = "SELECT topic_id FROM kafka_topics WHERE topic = $1"
        before = await eventually(lambda: world.superuser.fetchval(known, names[0]), timeout=20)
        jobs = await world.submit(tenant_id, count=20, priority=0)
        await admin.delete_topics(names)

        # The new identity is written down only when everything has been sent again.
        await eventually(
            lambda: world.superuser.fetchval(known, names[0]), until=lambda topic_id: topic_id != before, timeout=60
        )
        async with TopicReader(world.kafka, names[0]) as topic:
            for job_id in jobs:
                await topic.until(of_job(job_id))
        async with TopicReader(world.kafka, names[1]) as topic:
            late_id, due_at = new_id(), await world.now() + timedelta(seconds=1.5)
            retries, key, value = retry_record(tenant_id, late_id, 1, 1, due_at=due_at)
            await world.producer.send(retries, [(key, value, None)])
            record = await topic.until(of_job(late_id, fence=1), timeout=40)

    assert record.timestamp_ms / 1_000 >= due_at.timestamp()
