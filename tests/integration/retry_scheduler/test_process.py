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

    async def rate() -> float:
        before, began = await world.superuser.fetchval(committed), asyncio.get_running_loop().time()
        await asyncio.sleep(12)
        after, ended = await world.superuser.fetchval(committed), asyncio.get_running_loop().time()
        print(f"{(after - before) / (ended - began):.2f} transactions a second")
        return float((after - before) / (ended - began))

    async with running(world):
        # A rate can only be seen over time; Postgres counts what the start cost up to ten seconds later.
        await asyncio.sleep(14)
        # Two, and what Postgres does on its own; once a minute its vacuum comes by, and then it is more.
        await eventually(rate, until=lambda seen: seen <= 2.6)


async def test_a_killed_workers_job_is_back_in_kafka_within_its_lease_and_five_seconds(world: World) -> None:
    async with running(world, lease_seconds=3.0), TopicReader(world.kafka, JOBS[1].name) as topic:
        tenant_id = await world.tenant()
        over = "UPDATE workers SET lease_until = clock_timestamp() + interval '3 s' WHERE worker_id = $1"

        async def taken_back_after() -> float:
            """From the moment at which its lease is over, of a worker that will not renew it."""
            worker_id = await world.worker("echo")
            (job_id,) = await world.submit(tenant_id)
            async with world.engine.session() as session:
                keys, types = [(tenant_id, job_id)], {await world.type_id("echo"): 60_000}
                await claim_jobs(session, worker_id, new_id(), keys, types)
            lease_until = await world.superuser.fetchval(f"{over} RETURNING lease_until", worker_id)
            record = await topic.until(of_job(job_id, fence=1))
            took: float = record.timestamp_ms / 1_000 - lease_until.timestamp()
            print(f"back {took:.2f} s after the end of the lease")
            # A record's time is in whole milliseconds.
            assert took > -0.001
            return took

        # A machine that stands still makes one of them late, a slow product all of them.
        await eventually(taken_back_after, until=lambda took: took < 5.0)


async def test_jobs_due_by_the_clock_start_their_way_within_milliseconds(world: World) -> None:
    async with running(world), TopicReader(world.kafka, JOBS[1].name) as topic:
        tenant_id = await world.tenant()

        async def latest_of_nine_in_ten() -> float:
            run_at = await world.now() + timedelta(seconds=2.5)
            due = [run_at + timedelta(seconds=n / 10) for n in range(20)]
            jobs = [(await world.insert(tenant_id, run_at=at))[0] for at in due]
            late: list[float] = []
            for job_id, at in zip(jobs, due, strict=True):
                record = await topic.until(of_job(job_id))
                late.append(record.timestamp_ms / 1_000 - at.timestamp())
            late.sort()
            print(f"late by p50 {late[10] * 1e3:.0f} ms, p90 {late[18] * 1e3:.0f} ms")
            # A record's time is in whole milliseconds.
            assert late[0] > -0.001
            return late[18]

        # A machine that stands still makes them late for once, a slow product each time.
        await eventually(latest_of_nine_in_ten, until=lambda late: late < 0.25)


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
        record = await topic.until(of_job(job_id, fence=1))

    # The reconciler, which would find it too, waits for a minute.
    assert 5.0 - 0.001 < record.timestamp_ms / 1_000 - due_at.timestamp() < 50.0


async def test_a_wiped_kafka_is_filled_again_without_a_restart(world: World) -> None:
    tenant_id = await world.tenant()
    names = [topic.name for topic in (*JOBS, RETRIES, *DELAY_TIERS)]
    async with running(world), Admin(world.kafka) as admin:
        known = "SELECT topic_id FROM kafka_topics WHERE topic = $1"
        before = await eventually(lambda: world.superuser.fetchval(known, names[0]))
        jobs = await world.submit(tenant_id, count=20, priority=0)
        await admin.delete_topics(names)

        # The new identity is written down only when everything has been sent again.
        await eventually(
            lambda: world.superuser.fetchval(known, names[0]), until=lambda topic_id: topic_id != before, timeout=120
        )
        async with TopicReader(world.kafka, names[0]) as topic:
            for job_id in jobs:
                await topic.until(of_job(job_id))
        async with TopicReader(world.kafka, names[1]) as topic:
            late_id, due_at = new_id(), await world.now() + timedelta(seconds=1.5)
            retries, key, value = retry_record(tenant_id, late_id, 1, 1, due_at=due_at)
            await world.producer.send(retries, [(key, value, None)])
            record = await topic.until(of_job(late_id, fence=1), timeout=120)

    # By a clock that may be wrong by that much where it was measured while the machine stood still.
    assert record.timestamp_ms / 1_000 > due_at.timestamp() - 0.1
