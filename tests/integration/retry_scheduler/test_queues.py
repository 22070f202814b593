"""Queues of their own: topics that are kept, records that are sent there and again there, and hot tenants spread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from confluent_kafka import murmur2

from barnabas.contract import topics
from barnabas.contract.records import decode
from barnabas.contract.telling import job_keys, retry_record, tenant_key
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.lag import PartitionLag, lag
from barnabas.kafka.partitions import ConsumedRecord
from barnabas.postgres.reconciling import Suspect
from barnabas.runtime import metrics
from barnabas_retry_scheduler import reconcile
from barnabas_retry_scheduler.keep_topics import keep_topics_once
from barnabas_retry_scheduler.lost_records import Horizons
from barnabas_retry_scheduler.measure import measure_lag_once
from barnabas_retry_scheduler.reconcile import Reconciler
from barnabas_retry_scheduler.relay_outbox import relay_once
from barnabas_retry_scheduler.resources import Resources
from tests.integration.retry_scheduler.conftest import keep, of_job, wipe
from tests.integration.retry_scheduler.test_delays import carrying
from tests.integration.retry_scheduler.test_reconciling import grow_old, publish_old, read_all, walk
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.world import World, new_id


@pytest.fixture
async def readers(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Admin]:
    """A worker group of this test's own."""
    monkeypatch.setattr(reconcile, "WORKER_GROUP", f"test-{uuid4()}")
    async with Admin(world.kafka) as admin:
        yield admin


@pytest.fixture
async def queue(readers: Admin) -> AsyncIterator[str]:
    """The name of a queue that no other test has; its topics go at the end."""
    name = f"q{uuid4().hex[:8]}"
    yield name
    # What a broker that is too busy keeps is in nobody's way.
    with suppress(BrokerUnavailableError):
        await readers.delete_topics([topic.name for topic in topics.topics_of_queue(name)])


async def names_in_kafka(admin: Admin) -> set[str]:
    return await admin.call(lambda client: set(client.list_topics(timeout=60).topics))


async def all_records(world: World, topic: str, count: int) -> list[ConsumedRecord]:
    """The first `count` records of a topic."""
    found: list[ConsumedRecord] = []
    async with Consumer(world.kafka, group=f"test-{uuid4()}", topics=[topic]) as consumer:
        async with asyncio.timeout(60):
            while len(found) < count:
                found += await consumer.get(1_000, 0.5)
    return found


async def make_queue(world: World, scheduler: Resources, name: str) -> int:
    """A queue with its topics, of which the broker has chosen the leaders; its number."""
    queue_id = await world.queue(name)
    await keep_topics_once(scheduler)

    async def have_leaders() -> bool:
        with suppress(BrokerUnavailableError):
            await lag(scheduler.admin, "nobody", [topic.name for topic in topics.topics_of_queue(name)])
            return True
        return False

    await eventually(have_leaders)
    return queue_id


async def test_the_topics_of_every_queue_in_the_table_are_kept(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    await world.queue(queue)
    names = [topic.name for topic in topics.topics_of_queue(queue)]
    assert not set(names) & await names_in_kafka(readers)

    await keep_topics_once(scheduler)

    assert set(names) <= await names_in_kafka(readers)
    assert set(names) <= scheduler.identities.keys()
    await wipe(scheduler, readers, names[0])
    assert scheduler.lost.wiped == {names[0]}
    assert set(names) <= await names_in_kafka(readers)


async def test_the_relay_sends_a_job_to_the_topic_of_a_queue_that_is_younger_than_it(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.insert(tenant_id, queue=queue, priority=3)
    assert scheduler.queues.id_of(queue) is None
    await readers.ensure_topics(topics=topics.topics_of_queue(queue))
    await world.superuser.execute("UPDATE outbox SET created_at = created_at - interval '1 minute'")

    async with TopicReader(world.kafka, f"barnabas.jobs.{queue}.critical") as topic:
        assert await relay_once(scheduler) == 1
        record = await topic.until(of_job(job_id))

    assert decode(record.value).queue_id == await world.queue(queue)
    assert await world.superuser.fetchval("SELECT count(*) FROM outbox") == 0


async def test_after_a_wipe_of_a_queues_topic_its_jobs_are_sent_again_and_no_others(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    tenant_id = await world.tenant()
    await make_queue(world, scheduler, queue)
    name = topics.job_topic(queue, 0)
    jobs = await world.submit(tenant_id, count=40, priority=0, queue=queue)
    await world.submit(tenant_id, count=10, priority=0)
    await wipe(scheduler, readers, name)

    async with TopicReader(world.kafka, name) as topic:
        assert await walk(Reconciler(scheduler, page_rows=20)) == 40
        for job_id in jobs:
            await topic.until(of_job(job_id))

    assert scheduler.lost.wiped == frozenset()
    assert await keep_topics_once(scheduler) == []


async def test_jobs_of_a_queue_that_went_with_its_cluster_before_anybody_looked_are_sent_again(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    tenant_id = await world.tenant()
    await keep_topics_once(scheduler)
    name = topics.job_topic(queue, 0)
    await world.queue(queue)
    # As the first submission does.
    await readers.ensure_topics(topics=topics.topics_of_queue(queue))
    jobs = await world.submit(tenant_id, count=40, priority=0, queue=queue)
    await readers.delete_topics([name])
    await world.superuser.execute("UPDATE kafka_topics SET cluster_id = 'another'")
    await eventually(lambda: keep(scheduler), until=lambda changed: name in changed)

    async with TopicReader(world.kafka, name) as topic:
        assert await walk(Reconciler(scheduler, page_rows=20)) == 40
        for job_id in jobs:
            await topic.until(of_job(job_id))


async def test_a_backlog_of_a_queue_that_nobody_has_ever_read_is_not_sent_again(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    tenant_id = await world.tenant()
    await make_queue(world, scheduler, queue)
    jobs = await world.insert(tenant_id, count=30, queue=queue)
    await world.superuser.execute("DELETE FROM outbox")
    await publish_old(world, tenant_id, jobs, seconds=600, queue=queue)
    await grow_old(world, tenant_id, 600)

    assert await walk(Reconciler(scheduler)) == 0


async def test_a_lost_record_of_a_queue_is_found_while_other_queues_are_unread(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    tenant_id, other = await world.tenant(), await world.tenant()
    await make_queue(world, scheduler, queue)
    await world.submit(other, count=5)
    (lost,) = await world.insert(tenant_id, queue=queue)
    await world.superuser.execute("DELETE FROM outbox")
    names = [topic.name for topic in topics.topics_of_queue(queue)]
    await eventually(lambda: walk(Reconciler(scheduler)), until=lambda sent: sent == 0)
    await read_all(readers, reconcile.WORKER_GROUP, names)
    await grow_old(world, tenant_id, 35)

    async with TopicReader(world.kafka, topics.job_topic(queue, 1)) as topic:
        assert await walk(Reconciler(scheduler)) == 1
        await topic.until(of_job(lost))


async def test_a_record_is_not_called_lost_while_any_partition_that_it_may_be_in_is_unread(
    world: World, scheduler: Resources, readers: Admin
) -> None:
    """Whoever sent it may have spread its tenant: the oldest unread record under all of its keys counts."""
    tenant_id = await world.tenant()
    name, now = topics.job_topic("default", 1), scheduler.clock.now()

    def partitions_of(job_id: UUID) -> set[int]:
        return {murmur2(key, 24) for key in job_keys(tenant_id, job_id)}

    # By chance a few jobs have all of their keys in one partition.
    job_id = next(each for each in iter(new_id, None) if len(partitions_of(each)) > 1)
    mine = partitions_of(job_id)
    suspect = Suspect(tenant_id, job_id, 0, 1, 0, 1, now - timedelta(seconds=600))
    lags = [PartitionLag(name, partition, 0, 0, 1) for partition in range(24)]

    lost = set()
    for unread in range(24):
        oldest = {each.at: (now.timestamp() - 3_600) * 1_000 if each.partition == unread else None for each in lags}
        horizons = Horizons(lags, oldest, measured_at=now.timestamp())  # type: ignore[arg-type]  # parts of milliseconds
        walk_of_now = reconcile.Pass((name,), now.timestamp(), horizons, now.timestamp())
        Reconciler(scheduler)._judge(walk_of_now, suspect)
        if walk_of_now.lost:
            lost.add(unread)

    assert lost == set(range(24)) - mine


async def test_a_delayed_job_comes_back_to_its_queue(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    queue_id = await make_queue(world, scheduler, queue)
    tenant_id, job_id = await world.tenant(), new_id()
    due_at = await world.now() + timedelta(seconds=1.5)
    topic, key, value = retry_record(tenant_id, job_id, 1, 2, queue_id, due_at=due_at)

    async with carrying(scheduler), TopicReader(world.kafka, topics.job_topic(queue, 2)) as jobs:
        await world.producer.send(topic, [(key, value, None)])
        record = await jobs.until(of_job(job_id, 1))

    assert record.key == tenant_key(tenant_id)


async def test_a_hot_tenants_jobs_are_on_several_partitions_and_a_quiet_tenants_on_one(
    world: World, scheduler: Resources, readers: Admin, queue: str
) -> None:
    hot, quiet = await world.tenant(), await world.tenant()
    await make_queue(world, scheduler, queue)
    await world.insert(hot, queue=queue, count=900)
    await world.insert(quiet, queue=queue, count=20)
    await world.superuser.execute("UPDATE outbox SET created_at = created_at - interval '1 minute'")

    await relay_once(scheduler)

    partitions: dict[UUID, set[int]] = {hot: set(), quiet: set()}
    for record in await all_records(world, topics.job_topic(queue, 1), 920):
        partitions[decode(record.value).tenant_id].add(record.partition)
    assert len(partitions[hot]) > 6
    assert len(partitions[quiet]) == 1


async def test_the_lag_of_every_queue_is_shown(world: World, scheduler: Resources, readers: Admin, queue: str) -> None:
    tenant_id = await world.tenant()
    await make_queue(world, scheduler, queue)
    await world.submit(tenant_id, count=7, queue=queue)

    async def measured() -> bool:
        # Of every partition that nobody has read a record is fetched, within seconds.
        with suppress(BrokerUnavailableError):
            await measure_lag_once(scheduler)
            return True
        return False

    await eventually(measured)
    (lags,) = metrics.consumer_lag_records.collect()
    shown = {sample.labels["topic"]: sample.value for sample in lags.samples}
    assert shown[topics.job_topic(queue, 1)] == 7
    assert shown[topics.job_topic(queue, 0)] == 0
