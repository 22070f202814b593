"""Records that Kafka has lost come back; a backlog, however old, is left alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from barnabas.contract import topics
from barnabas.contract.events import decode_event
from barnabas.contract.records import decode
from barnabas.contract.telling import job_record, tenant_key
from barnabas.domain.ids import uuid7
from barnabas.domain.jobs import JobState
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.lag import PartitionLag, lag
from barnabas.kafka.partitions import TopicPartition
from barnabas.kafka.routes import Routes
from barnabas.postgres.turns import Finishing
from barnabas.runtime import metrics
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler import reconcile, reconcile_deliveries
from barnabas_retry_scheduler.keep_topics import keep_topics_once
from barnabas_retry_scheduler.lost_records import Horizons
from barnabas_retry_scheduler.reconcile import Reconciler
from barnabas_retry_scheduler.reconcile_deliveries import DeliveryReconciler
from barnabas_retry_scheduler.replay_events import replay_once
from barnabas_retry_scheduler.resources import Resources
from tests.integration.retry_scheduler.conftest import of_job, wipe
from tests.support.eventually import at_last, eventually
from tests.support.topics import TopicReader
from tests.support.turns import claim_jobs, finish_jobs
from tests.support.world import World, new_id


@pytest.fixture
async def readers(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Admin]:
    """Groups that have read everything, whatever other tests left in the topics."""
    jobs, deliveries = f"test-{uuid4()}", f"test-{uuid4()}"
    monkeypatch.setattr(reconcile, "WORKER_GROUP", jobs)
    monkeypatch.setattr(reconcile_deliveries, "NOTIFIER_GROUP", deliveries)
    async with Admin(world.kafka) as admin:
        await read_all(admin, jobs, [topic.name for topic in topics.JOBS])
        await read_all(admin, deliveries, [topics.DELIVERIES_RETRY.name])
        yield admin


async def read_all(admin: Admin, group: str, names: list[str]) -> None:
    """Commit the end of every partition for a group."""
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
    from confluent_kafka import TopicPartition as ClientPartition

    async def attempt() -> None:
        ends = [ClientPartition(each.topic, each.partition, each.high) for each in await lag(admin, group, names)]

        def commit(client: object) -> None:
            futures = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, ends)])  # type: ignore[attr-defined]
            for each in futures[group].result(30).topic_partitions:
                if each.error is not None:
                    raise KafkaException(each.error)

        await admin.call(commit)

    # The first group of a fresh cluster has to wait, and so does a topic that was made a moment ago.
    await at_last(attempt, refused=BrokerUnavailableError)


async def publish_old(
    world: World, tenant_id: UUID, job_ids: Sequence[UUID], *, seconds: float, queue: str = topics.DEFAULT_QUEUE
) -> None:
    """Records for these jobs, as if they had been written so long ago."""
    queue_id, written_at = await world.queue(queue), await world.now() - timedelta(seconds=seconds)
    records = [job_record(tenant_id, job_id, 0, 1, queue_id) for job_id in job_ids]
    client = world.producer._client
    for topic, group in Routes(world.queues.name_of).by_topic(records).items():
        for key, value, _ in group:
            client.produce(topic, value, key, timestamp=int(written_at.timestamp() * 1_000))
    assert await asyncio.to_thread(client.flush, 60) == 0


async def walk(reconciler: Reconciler | DeliveryReconciler) -> int:
    """A whole walk, begun again while Kafka is still choosing the leaders of topics just made."""
    return await at_last(reconciler.reconcile_once, refused=BrokerUnavailableError)


async def grow_old(world: World, tenant_id: UUID, seconds: float) -> None:
    """Everything of a tenant became ready that much earlier."""
    age = timedelta(seconds=seconds)
    await world.superuser.execute(
        "UPDATE jobs SET ready_at = ready_at - $2::interval, due_at = due_at - $2::interval WHERE tenant_id = $1",
        tenant_id,
        age,
    )


async def test_a_queued_job_without_a_record_is_sent_again_once_it_is_older_than_the_margin(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.submit(tenant_id, priority=3)
    await read_all(readers, reconcile.WORKER_GROUP, [topic.name for topic in topics.JOBS])
    reconciler = Reconciler(scheduler)
    assert await walk(reconciler) == 0

    await grow_old(world, tenant_id, 35)
    async with TopicReader(world.kafka, topics.JOBS[3].name) as topic:
        assert await walk(reconciler) == 1
        # The one that everybody has read, and the new one.
        await eventually(lambda: sum(map(of_job(job_id), topic.records)) == 2)

    # It is given time to be taken, and its new record is unread and young.
    assert await walk(reconciler) == 0


async def test_an_unread_backlog_is_not_sent_again_by_age(world: World, scheduler: Resources, readers: Admin) -> None:
    tenant_id = await world.tenant()
    jobs = await world.insert(tenant_id, count=200)
    await world.superuser.execute("DELETE FROM outbox")
    await publish_old(world, tenant_id, jobs, seconds=600)
    await grow_old(world, tenant_id, 600)

    assert await walk(Reconciler(scheduler, page_rows=50)) == 0


async def test_what_waits_runs_or_is_still_in_the_outbox_is_not_lost(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    limited, free = await world.tenant(running_at_most=1), await world.tenant()
    worker_id = await world.worker("echo")
    parked = await world.submit(limited, count=3)
    async with world.engine.session() as session:
        keys = [(limited, job_id) for job_id in parked]
        await claim_jobs(session, worker_id, new_id(), keys, {await world.type_id("echo"): 60_000})
    await world.submit(free, run_at=await world.now() + timedelta(hours=5))
    untold = await world.insert(free)
    await read_all(readers, reconcile.WORKER_GROUP, [topic.name for topic in topics.JOBS])
    for tenant_id in (limited, free):
        await world.superuser.execute(
            "UPDATE jobs SET ready_at = ready_at - interval '100 s' WHERE tenant_id = $1", tenant_id
        )
    await world.superuser.execute("UPDATE outbox SET created_at = created_at - interval '100 s'")

    assert await walk(Reconciler(scheduler)) == 0

    await world.superuser.execute("DELETE FROM outbox WHERE ref_ids && $1", untold)
    assert await walk(Reconciler(scheduler)) == 1


async def test_a_due_job_whose_timer_is_gone_is_sent_again(world: World, scheduler: Resources, readers: Admin) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.submit(tenant_id, run_at=await world.now())
    await grow_old(world, tenant_id, 100)
    assert await walk(Reconciler(scheduler)) == 0

    await world.superuser.execute("DELETE FROM timers WHERE ref_id = $1", job_id)
    assert await walk(Reconciler(scheduler)) == 1


async def test_a_running_job_of_a_worker_without_a_heartbeat_row_is_taken_back(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    tenant_id = await world.tenant()
    worker_id = await world.worker("echo")
    (job_id,) = await world.submit(tenant_id)
    async with world.engine.session() as session:
        await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
    await world.superuser.execute("DELETE FROM workers WHERE worker_id = $1", worker_id)
    await world.superuser.execute("UPDATE jobs SET started_at = started_at - interval '10 s'")
    await walk(Reconciler(scheduler))

    assert await world.states(tenant_id) == {"queued": 1}
    assert await world.superuser.fetchval("SELECT losses FROM jobs") == 1


async def test_the_walk_counts_open_jobs_by_state_and_knows_the_oldest(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    tenant_id = await world.tenant()
    await world.submit(tenant_id, count=7, priority=2)
    await world.submit(tenant_id, count=3, run_at=await world.now() + timedelta(hours=1))
    began = time.monotonic()
    await world.superuser.execute("UPDATE jobs SET ready_at = now() - interval '25 s' WHERE state = 2")
    await walk(Reconciler(scheduler, page_rows=4))
    took = time.monotonic() - began

    assert metrics.jobs.labels("queued")._value.get() == 7
    assert metrics.jobs.labels("scheduled")._value.get() == 3
    # By two clocks, of which one follows the other.
    assert 24 < metrics.oldest_waiting_seconds.labels("high")._value.get() < 26 + took
    assert metrics.oldest_waiting_seconds.labels("medium")._value.get() == 0


async def test_after_a_wipe_every_open_queued_job_is_sent_again_at_once_and_only_once(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    first, second = await world.tenant(), await world.tenant()
    await keep_topics_once(scheduler)
    name = topics.JOBS[0].name
    jobs = [(first, job_id) for job_id in await world.submit(first, count=150, priority=0)]
    jobs += [(second, job_id) for job_id in await world.submit(second, count=50, priority=0)]
    untouched = await world.submit(first, count=5, priority=2)
    await wipe(scheduler, readers, name)
    assert scheduler.lost.wiped == {name}

    reconciler = Reconciler(scheduler, page_rows=60)
    async with TopicReader(world.kafka, name) as topic:
        assert await walk(reconciler) == 200
        for _, job_id in jobs:
            await topic.until(of_job(job_id))
        assert len(topic.records) == 200
    assert untouched

    assert scheduler.lost.wiped == frozenset()
    assert await keep_topics_once(scheduler) == []
    assert await walk(reconciler) == 0


async def test_a_wipe_that_was_not_made_good_is_noticed_again_after_a_restart(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    await keep_topics_once(scheduler)
    name = topics.JOBS[0].name
    await wipe(scheduler, readers, name)

    assert await keep_topics_once(scheduler) == [name]

    await walk(Reconciler(scheduler))
    assert await keep_topics_once(scheduler) == []


async def test_a_pending_delivery_without_a_record_is_told_again(
    world: World, scheduler: Resources, readers: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id, endpoint_id, event_id = await world.tenant(), new_id(), scheduler.ids.mint()
    await world.superuser.execute(
        "INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, fence, state)"
        " VALUES ($1, $2, $3, $2, $2, 1, 0)",
        tenant_id,
        event_id,
        endpoint_id,
    )
    reconciler = DeliveryReconciler(scheduler)
    assert await walk(reconciler) == 0
    # As if it had been seen first a while ago.
    reconciler._first_seen = {seen: at - 40 for seen, at in reconciler._first_seen.items()}
    async with TopicReader(world.kafka, topics.DELIVERIES_RETRY.name) as topic:
        assert await walk(reconciler) == 1
        record = await topic.until(lambda record: record.key == tenant_key(tenant_id))

    assert (decode(record.value).ref_id, decode(record.value).endpoint_id) == (event_id, endpoint_id)
    assert await walk(reconciler) == 0


async def test_after_a_wipe_of_results_events_without_a_delivery_are_sent_again_to_tenants_with_endpoints(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    told, silent = await world.tenant(), await world.tenant()
    await world.superuser.execute(
        "INSERT INTO endpoints (tenant_id, endpoint_id, url) VALUES ($1, $2, 'https://example.com')", told, new_id()
    )
    ended: dict[UUID, UUID] = {}
    for tenant_id in (told, told, silent):
        event_id = scheduler.ids.mint()
        await _end_job(world, tenant_id, event_id)
        ended[event_id] = tenant_id
    known = next(event_id for event_id, tenant_id in ended.items() if tenant_id == told)
    await world.superuser.execute(
        "INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, state)"
        " VALUES ($1, $2, $2, $2, $2, 4)",
        told,
        known,
    )
    await keep_topics_once(scheduler)
    await wipe(scheduler, readers, topics.RESULTS.name)
    async with TopicReader(world.kafka, topics.RESULTS.name) as results:
        assert await replay_once(scheduler, Stop()) == 1
        record = await results.until(lambda record: record.key == tenant_key(told))

    event = decode_event(record.value)
    assert ended.pop(event.id) == told
    assert event.id != known
    assert await keep_topics_once(scheduler) == []


async def test_events_are_sent_again_from_when_the_topic_was_last_seen_however_long_kafka_was_away(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    told = await world.tenant()
    await world.superuser.execute(
        "INSERT INTO endpoints (tenant_id, endpoint_id, url) VALUES ($1, $2, 'https://example.com')", told, new_id()
    )
    now = (await world.now()).timestamp()
    minutes = scheduler.settings.results_replay_minutes
    await _end_job(world, told, uuid7(round(1_000 * (now - 90.0 * minutes)), bytes(10)))
    await keep_topics_once(scheduler)
    # The job ended half as long before that as is looked back.
    scheduler.seen_at = now - 60.0 * minutes
    await wipe(scheduler, readers, topics.RESULTS.name)

    assert await replay_once(scheduler, Stop()) == 1


async def test_a_wipe_while_an_earlier_one_is_made_good_has_to_be_made_good_too(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    await keep_topics_once(scheduler)
    await wipe(scheduler, readers, topics.RESULTS.name)
    began_at = scheduler.clock.now().timestamp()
    await wipe(scheduler, readers, topics.RESULTS.name)

    assert scheduler.lost.made_good({topics.RESULTS.name}, before=began_at) == set()
    assert await replay_once(scheduler, Stop()) == 0
    assert await keep_topics_once(scheduler) == []


async def _end_job(world: World, tenant_id: UUID, event_id: UUID) -> None:
    worker_id = await world.worker("echo")
    (job_id,) = await world.submit(tenant_id)
    async with world.engine.session() as session:
        await claim_jobs(session, worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 60_000})
        await finish_jobs(session, worker_id, [Finishing(tenant_id, job_id, 1, JobState.SUCCEEDED, event_id)])


async def test_a_lag_read_from_kafka_gives_the_horizon_of_the_oldest_unread_record(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    tenant_id = await world.tenant()
    before = await world.now()
    await world.submit(tenant_id, count=3, priority=1)
    begun = await Reconciler(scheduler)._begin()
    at = begun.horizons.of(topics.JOBS[1].name, tenant_key(tenant_id))

    # A record's time is in whole milliseconds.
    assert before.timestamp() - 0.001 <= at <= begun.started_at
    lags = [PartitionLag("t", 0, 0, 0, 0)]
    assert Horizons(lags, {TopicPartition("t", 0): None}, measured_at=5.0).latest == 5.0
