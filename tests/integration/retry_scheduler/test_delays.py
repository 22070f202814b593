"""Records on their way through the delay tiers of a real Kafka."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import uuid4

from confluent_kafka import murmur2
from prometheus_client import Counter

from barnabas.contract import topics
from barnabas.contract.records import decode
from barnabas.contract.telling import delivery_retry_record, retry_record
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.lag import PartitionLag, lag
from barnabas.kafka.partitions import TopicPartition
from barnabas.runtime import metrics
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.carry_delays import SOURCES, Carrier
from barnabas_retry_scheduler.delay_line import DelayLine
from barnabas_retry_scheduler.resources import Resources
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.world import World, new_id


@asynccontextmanager
async def carrying(
    resources: Resources,
    *,
    group: str | None = None,
    line: DelayLine | None = None,
    ends: Mapping[TopicPartition, int] | None = None,
    options: ConsumerOptions | None = None,
) -> AsyncIterator[Carrier]:
    """A carrier in a group of its own that begins behind what other tests have left in the topics."""
    stop = Stop()
    carrier: Carrier
    names = [topic.name for topic in SOURCES]
    group = group or f"test-{uuid4()}"
    async with Admin(resources.settings.kafka) as admin:

        async def known() -> list[PartitionLag]:
            # The first group of a fresh cluster waits until the broker has made room for groups.
            with suppress(BrokerUnavailableError):
                return await lag(admin, group, names)
            return []

        lags = await eventually(known, timeout=60)
    starts = {each.at: each.high for each in lags} if ends is None else dict(ends)
    starts |= {each.at: each.committed for each in lags if each.committed is not None}

    def assigned(partitions: Sequence[TopicPartition]) -> None:
        carrier.assigned(partitions)

    async def revoked(partitions: Sequence[TopicPartition], lost: bool) -> Mapping[TopicPartition, int]:
        return await carrier.revoked(partitions, lost)

    async def begin(partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {at: starts[at] for at in partitions}

    consumer = Consumer(
        resources.settings.kafka,
        group=group,
        topics=names,
        options=options or ConsumerOptions(),
        start_offsets=begin,
        on_assigned=assigned,
        on_revoked=revoked,
    )
    line = DelayLine() if line is None else line
    carrier = Carrier(consumer, resources.producer, resources.routes, resources.queues, resources.clock, line)
    async with consumer:
        task = asyncio.create_task(carrier.carry(stop))
        try:
            await eventually(lambda: len(consumer.assignment) == 24 * len(SOURCES))
            yield carrier
        finally:
            stop.set()
            await task


async def send_retries(world: World, *, delay: float, count: int, apart: float = 0.001) -> dict[object, float]:
    """Records into `retries`; returns when each job is due, by the database's clock."""
    tenant_id = new_id()
    due_at = await world.now() + timedelta(seconds=delay)
    due: dict[object, float] = {}
    records = []
    for n in range(count):
        job_id, at = new_id(), due_at + timedelta(seconds=n * apart)
        due[job_id] = at.timestamp()
        _, key, value = retry_record(tenant_id, job_id, 1, 2, due_at=at)
        records.append((key, value, None))
    await world.producer.send(topics.RETRIES.name, records)
    return due


async def lateness(reader: TopicReader, due: Mapping[object, float]) -> list[float]:
    """How late each of these jobs arrived at its topic, by the time its record was written."""
    found: dict[object, float] = {}
    looked_at = 0

    def arrived() -> int:
        nonlocal looked_at
        # Only what is new since the last look: this shares its event loop with the carrier that is measured.
        new, looked_at = reader.records[looked_at:], len(reader.records)
        for record in new:
            job_id = decode(record.value).ref_id
            if job_id in due:
                # A record of a jobs topic carries its producer's time: this machine's, as the database's is.
                found[job_id] = record.timestamp_ms / 1_000 - due[job_id]
        return len(found)

    await eventually(arrived, until=lambda count: count == len(due), timeout=200)
    return sorted(found.values())


async def arrive_on_time(world: World, scheduler: Resources, jobs: TopicReader, *, delay: float, count: int) -> None:
    """None of many, due one after the other, is early, and nine in ten are hardly late.

    A machine that stands still makes some of them late for once; a product that is slow, most of them each time.
    """

    async def clock_is_right() -> bool:
        await scheduler.clock.synchronise()
        return scheduler.clock.uncertainty_seconds < 0.02

    async def latest_of_nine_in_ten() -> float:
        late = await lateness(jobs, await send_retries(world, delay=delay, count=count, apart=0.01))
        at = count * 9 // 10
        print(
            f"{delay} s: late by p50 {late[count // 2] * 1e3:.0f} ms, p90 {late[at] * 1e3:.0f} ms, max {late[-1]:.3f} s"
        )
        assert late[0] >= 0.0
        return late[at]

    # One that was measured badly may be ahead of the database.
    await eventually(clock_is_right)
    await eventually(latest_of_nine_in_ten, until=lambda late: late < 0.3)


async def test_a_delay_of_five_seconds_is_never_early_and_hardly_late(world: World, scheduler: Resources) -> None:
    async with carrying(scheduler), TopicReader(world.kafka, topics.JOBS[2].name) as jobs:
        await arrive_on_time(world, scheduler, jobs, delay=5.0, count=200)


async def test_delays_below_and_between_the_tiers_are_exact_too(world: World, scheduler: Resources) -> None:
    async with carrying(scheduler), TopicReader(world.kafka, topics.JOBS[2].name) as jobs:
        for delay in (0.4, 2.3):
            await arrive_on_time(world, scheduler, jobs, delay=delay, count=100)


async def test_an_overdue_record_and_one_without_a_due_time_leave_at_once(world: World, scheduler: Resources) -> None:
    async with carrying(scheduler), TopicReader(world.kafka, topics.JOBS[2].name) as jobs:
        due = await send_retries(world, delay=-100.0, count=1)
        (job_id,) = due
        await jobs.until(lambda record: decode(record.value).ref_id == job_id)


async def test_a_delivery_ends_its_delay_in_its_own_topic_with_the_same_bytes(
    world: World, scheduler: Resources
) -> None:
    tenant_id, event_id, endpoint_id = new_id(), new_id(), new_id()
    due_at = await world.now() + timedelta(seconds=0.3)
    topic, key, value = delivery_retry_record(tenant_id, event_id, endpoint_id, 4, due_at=due_at)
    async with carrying(scheduler), TopicReader(world.kafka, topics.DELIVERIES_RETRY.name) as deliveries:
        await world.producer.send(topic, [(key, value, None)])
        record = await deliveries.until(lambda record: decode(record.value).ref_id == event_id)

    assert (record.key, record.value) == (key, value)


async def test_a_malformed_record_is_counted_and_does_not_stop_its_partition(
    world: World, scheduler: Resources
) -> None:
    counter: Counter = metrics.malformed_records.labels(topics.RETRIES.name)
    before = counter._value.get()
    tenant_id, job_id = new_id(), new_id()
    group = f"test-{uuid4()}"
    topic, key, value = retry_record(tenant_id, job_id, 0, 2, due_at=await world.now())
    bad = [(key, junk, None) for junk in (b"", b"{}", value[:-1], bytes([99]) + value[1:], None)]
    async with carrying(scheduler, group=group), TopicReader(world.kafka, topics.JOBS[2].name) as jobs:
        await world.producer.send(topic, [*bad, (key, value, None)])
        await jobs.until(lambda record: decode(record.value).ref_id == job_id)
    async with Admin(world.kafka) as admin:
        behind = await lag(admin, group, [topics.RETRIES.name])

    assert counter._value.get() - before >= len(bad)
    assert behind[murmur2(key, len(behind))].records == 0


async def test_what_was_held_when_a_carrier_ended_is_carried_on_by_the_next(world: World, scheduler: Resources) -> None:
    group = f"test-{uuid4()}"
    async with Admin(world.kafka) as admin:
        ends = {each.at: each.high for each in await lag(admin, group, [topic.name for topic in SOURCES])}
    async with TopicReader(world.kafka, topics.JOBS[2].name) as jobs:
        line = DelayLine()
        async with carrying(scheduler, group=group, line=line, ends=ends):
            due = await send_retries(world, delay=3_600.0, count=50)
            await eventually(lambda: len(line) == 50)
        assert not any(decode(record.value).ref_id in due for record in jobs.records)

        # Two hours later.
        scheduler.clock._base += timedelta(hours=2)
        async with carrying(scheduler, group=group, ends=ends):
            assert len(await lateness(jobs, due)) == 50


async def test_a_flood_of_delayed_records_is_paused_in_kafka_and_arrives_whole(
    world: World, scheduler: Resources
) -> None:
    line = DelayLine(queue_full=500, queue_low=250)
    held = []
    # What was read ahead when a partition is paused is taken in all the same, so it must be little beside the flood.
    options = ConsumerOptions(inbox_records=200)
    async with carrying(scheduler, line=line, options=options), TopicReader(world.kafka, topics.JOBS[2].name) as jobs:
        due = await send_retries(world, delay=3.0, count=10_000)

        watch = asyncio.create_task(lateness(jobs, due))
        while not watch.done():
            held.append(len(line))
            await asyncio.wait([watch], timeout=0.05)
        await watch

    print(f"held at most {max(held)} of {len(due)}")
    # One tenant: one partition of `retries` and of each tier, each with what was on its way when it was paused.
    assert max(held) < 9_000


async def test_the_tiers_stamp_their_records_with_the_brokers_own_time(world: World) -> None:
    tenant_id = new_id()
    before = await world.now()
    _, key, value = retry_record(tenant_id, new_id(), 77, 2, due_at=before)
    async with TopicReader(world.kafka, topics.DELAY_TIERS[-1].name) as tier:
        client = world.producer._client
        client.produce(topics.DELAY_TIERS[-1].name, value, key, timestamp=1_000)
        assert client.flush(60) == 0
        record = await tier.until(lambda record: record.key == key)

    # Clocks of two processes on one machine, the broker's in whole milliseconds.
    assert before.timestamp() - 1 < record.timestamp_ms / 1_000 < (await world.now()).timestamp() + 1


async def test_a_record_from_a_producer_whose_clock_is_ahead_holds_up_none_behind_it(
    world: World, scheduler: Resources
) -> None:
    tenant_id, job_id = new_id(), new_id()
    now = await world.now()
    _, key, far = retry_record(tenant_id, new_id(), 1, 2, due_at=now + timedelta(minutes=5))
    _, _, near = retry_record(tenant_id, job_id, 1, 2, due_at=now + timedelta(seconds=1))
    async with carrying(scheduler), TopicReader(world.kafka, topics.JOBS[2].name) as jobs:
        client = world.producer._client
        client.produce(topics.RETRIES.name, far, key, timestamp=int(now.timestamp() * 1_000) + 600_000)
        client.produce(topics.RETRIES.name, near, key)
        assert client.flush(60) == 0

        await jobs.until(lambda record: decode(record.value).ref_id == job_id)


async def test_a_tier_counts_from_when_a_record_was_sent_on_and_not_by_the_brokers_clock(
    world: World, scheduler: Resources
) -> None:
    now = await world.now()
    tier = topics.DELAY_TIERS[-1]
    _, key, value = retry_record(new_id(), new_id(), 1, 2, due_at=now + timedelta(minutes=1))
    sent_ms = int((now.timestamp() - tier.delay_seconds) * 1_000)
    async with carrying(scheduler), TopicReader(world.kafka, topics.DELAY_TIERS[2].name) as next_tier:
        await world.producer.send(tier.name, [(key, value, [("barnabas-sent-ms", b"%d" % sent_ms)])])
        record = await next_tier.until(lambda record: record.key == key, timeout=30)

    # It says when that was, for whoever carries it from there.
    ((name, again_ms),) = record.headers
    assert (name, abs(int(again_ms or 0) - record.timestamp_ms) < 5_000) == ("barnabas-sent-ms", True)
