"""What a writer left untold reaches Kafka all the same, as the rows say it by now."""

from datetime import timedelta
from uuid import UUID

import pytest

from barnabas.contract import topics
from barnabas.contract.events import decode_event
from barnabas.contract.records import RecordKind, decode
from barnabas.contract.telling import OutboxKind, event_records
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import JobState
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.producer import Producer
from barnabas.postgres.outbox import read_events, read_outbox, records_of
from barnabas.postgres.turns import Finishing, Releasing
from barnabas_retry_scheduler.relay_outbox import relay_once
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import tell_committed
from tests.integration.retry_scheduler.conftest import ask_once, of_job
from tests.support.topics import TopicReader
from tests.support.turns import claim_jobs, finish_jobs, release_jobs
from tests.support.world import World, new_id


async def age_outbox(world: World, seconds: float = 6.0) -> None:
    await world.superuser.execute(
        "UPDATE outbox SET created_at = clock_timestamp() - $1::interval", timedelta(seconds=seconds)
    )


async def keep_young(world: World) -> None:
    """However long the test stands still, the rows of the outbox are too young to be relayed."""
    await age_outbox(world, seconds=-600.0)


async def untold(world: World) -> int:
    count: int = await world.superuser.fetchval("SELECT count(*) FROM outbox")
    return count


async def claimed(world: World, tenant_id: UUID) -> tuple[UUID, UUID]:
    """A running job and its worker, nothing in the outbox."""
    worker_id = await world.worker("echo")
    (job_id,) = await world.submit(tenant_id)
    async with world.engine.session() as session:
        await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
    return worker_id, job_id


async def test_what_a_dead_writer_left_behind_is_relayed_and_its_row_deleted(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    jobs = await world.insert(tenant_id, count=3)

    assert await relay_once(scheduler, stale_seconds=600) == 0  # its writer may still be at it

    await age_outbox(world)
    async with TopicReader(world.kafka, topics.JOBS[1].name) as topic:
        assert await relay_once(scheduler) == 1
        for job_id in jobs:
            record = decode((await topic.until(of_job(job_id))).value)
            assert (record.kind, record.tenant_id, record.fence) == (RecordKind.JOB, tenant_id, 0)

    assert await untold(world) == 0


async def test_the_question_rings_for_an_old_row_and_not_for_a_young_one(world: World, scheduler: Resources) -> None:
    await world.insert(await world.tenant())
    await keep_young(world)
    await ask_once(scheduler)
    assert not await scheduler.bells.outbox.heard(0)

    await age_outbox(world)
    await ask_once(scheduler)
    assert await scheduler.bells.outbox.heard(0)


async def test_a_job_that_has_moved_on_is_not_told_again(world: World, scheduler: Resources) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    (job_id,) = await world.insert(tenant_id)
    async with world.engine.session() as session:
        await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
        rows = await read_outbox(session, [await world.superuser.fetchval("SELECT outbox_id FROM outbox")])

        assert await records_of(session, rows) == []

    await age_outbox(world)
    assert await relay_once(scheduler) == 1
    assert await untold(world) == 0


async def test_a_backoff_is_relayed_to_retries_with_its_due_time(world: World, scheduler: Resources) -> None:
    tenant_id = await world.tenant()
    worker_id, job_id = await claimed(world, tenant_id)
    due_at = await world.now() + timedelta(seconds=300)
    async with world.engine.session() as session:
        await release_jobs(session, worker_id, [Releasing(tenant_id, job_id, 1, AttemptKind.ATTEMPT, due_at)])
    await age_outbox(world)
    async with TopicReader(world.kafka, topics.RETRIES.name) as retries:
        await relay_once(scheduler)
        wanted = await retries.until(lambda record: record.key == str(tenant_id).encode())

    assert decode(wanted.value).due_ms == pytest.approx(due_at.timestamp() * 1_000, abs=1)


async def test_a_dead_letter_is_relayed_as_its_event_and_as_a_copy_for_people_with_equal_bytes(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    worker_id, job_id = await claimed(world, tenant_id)
    event_id = scheduler.ids.mint()
    ending = Finishing(tenant_id, job_id, 1, JobState.FAILED, event_id, error=b"{}", reason="permanent_error")
    async with world.engine.session() as session:
        await finish_jobs(session, worker_id, [ending])
        (expected,) = await read_events(session, [tenant_id], [job_id])
    await age_outbox(world)
    key = str(tenant_id).encode()
    async with (
        TopicReader(world.kafka, topics.RESULTS.name) as results,
        TopicReader(world.kafka, topics.JOBS_DLQ.name) as dead,
    ):
        await relay_once(scheduler)
        event = await results.until(lambda record: record.key == key)
        copy = await dead.until(lambda record: record.key == key)

    assert event.value == copy.value == event_records(expected)[0].value
    assert ("reason", b"permanent_error") in copy.headers
    told = decode_event(event.value)
    assert (told.id, told.type, told.job_id, told.attempt, told.fence) == (event_id, "job.failed", job_id, 1, 1)


async def test_a_pending_delivery_is_relayed_and_one_that_moved_on_is_not(world: World, scheduler: Resources) -> None:
    tenant_id, endpoint_id = await world.tenant(), new_id()
    pending, gone = scheduler.ids.mint(), scheduler.ids.mint()
    for event_id, state in ((pending, 0), (gone, 4)):
        await world.superuser.execute(
            "INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, fence, state)"
            " VALUES ($1, $2, $3, $2, $2, 3, $4)",
            tenant_id,
            event_id,
            endpoint_id,
            state,
        )
    await world.superuser.execute(
        "INSERT INTO outbox (kind, tenant_ids, ref_ids, endpoint_ids, fences) VALUES ($1, $2, $3, $4, $5)",
        OutboxKind.DELIVERIES,
        [tenant_id] * 2,
        [pending, gone],
        [endpoint_id] * 2,
        [3, 3],
    )
    await age_outbox(world)
    async with TopicReader(world.kafka, topics.DELIVERIES_RETRY.name) as topic:
        await relay_once(scheduler)
        record = await topic.until(lambda record: record.key == str(tenant_id).encode())

    assert decode(record.value).ref_id == pending
    assert decode(record.value).endpoint_id == endpoint_id
    assert sum(each.key == record.key for each in topic.records) == 1


async def test_rows_that_kafka_did_not_acknowledge_stay(world: World, scheduler: Resources) -> None:
    await world.insert(await world.tenant(), count=2)
    await age_outbox(world)
    async with Producer("127.0.0.1:1", delivery_timeout_seconds=0.5) as unreachable:
        reachable, scheduler.producer = scheduler.producer, unreachable
        with pytest.raises(BrokerUnavailableError):
            await relay_once(scheduler)
        (outbox_id,) = [row["outbox_id"] for row in await world.superuser.fetch("SELECT outbox_id FROM outbox")]
        await tell_committed(scheduler, [outbox_id, None])
        scheduler.producer = reachable

        assert await untold(world) == 1

    await relay_once(scheduler)
    assert await untold(world) == 0


async def test_a_backlog_of_large_rows_is_relayed_in_steps_of_few(world: World, scheduler: Resources) -> None:
    tenant_id = await world.tenant()
    for _ in range(23):
        await world.insert(tenant_id, count=120)
    await world.superuser.execute("UPDATE outbox SET created_at = created_at - interval '10 minutes'")

    assert [await relay_once(scheduler) for _ in range(3)] == [20, 3, 0]
    assert await untold(world) == 0


async def test_a_backlog_of_small_rows_is_relayed_at_once_and_remembered_as_late(
    world: World, scheduler: Resources
) -> None:
    tenant_id = await world.tenant()
    for _ in range(45):
        await world.insert(tenant_id)
    await world.superuser.execute("UPDATE outbox SET created_at = created_at - interval '10 minutes'")
    ready_at = (
        await world.superuser.fetchval("SELECT created_at FROM outbox ORDER BY 1 OFFSET 30 LIMIT 1")
    ).timestamp()
    began_at = scheduler.clock.now().timestamp()

    assert [await relay_once(scheduler) for _ in range(2)] == [45, 0]
    assert await untold(world) == 0
    assert began_at <= scheduler.lost.in_kafka_since(ready_at) <= scheduler.clock.now().timestamp()
