import time

import pytest

from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.lag import PartitionLag, lag, oldest_unread_timestamp_ms, report_lag
from barnabas.kafka.partitions import TopicPartition
from barnabas.kafka.producer import Producer
from barnabas.runtime.metrics import REGISTRY
from tests.integration.kafka.conftest import MakeTopic, consume, numbered


async def test_a_group_that_never_committed_is_behind_by_everything(
    admin: Admin, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    await producer.send(name, numbered(range(25)))

    assert await lag(admin, f"g.{name}", [name]) == [PartitionLag(name, 0, committed=None, low=0, high=25)]


async def test_lag_counts_from_the_committed_offset_and_its_age_from_the_next_record(
    bootstrap: str, admin: Admin, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    group = f"g.{name}"
    await producer.send(name, numbered(range(20)))
    async with Consumer(bootstrap, group=group, topics=[name]) as consumer:
        records = await consume(consumer, 20)
        consumer.commit({TopicPartition(name, 0): 15})
    lags = await lag(admin, group, [name])
    oldest = await oldest_unread_timestamp_ms(admin, lags, timeout=60)
    await report_lag(admin, group, [name])

    assert [(each.committed, each.records) for each in lags] == [(15, 5)]
    assert oldest == {TopicPartition(name, 0): records[15].timestamp_ms}
    assert REGISTRY.get_sample_value("barnabas_consumer_lag_records", {"group": group, "topic": name}) == 5
    age = REGISTRY.get_sample_value("barnabas_consumer_lag_seconds", {"group": group, "topic": name})
    assert age is not None
    assert 0 < age <= time.time() - records[15].timestamp_ms / 1_000


async def test_a_group_that_read_everything_has_no_oldest_record(
    bootstrap: str, admin: Admin, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(3)
    await producer.send(name, numbered(range(30)))
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        records = await consume(consumer, 30)
        consumer.commit({record.at: record.offset + 1 for record in records})
    lags = await lag(admin, f"g.{name}", [name])

    assert sum(each.records for each in lags) == 0
    assert set((await oldest_unread_timestamp_ms(admin, lags)).values()) == {None}


async def test_many_partitions_are_asked_at_once(admin: Admin, producer: Producer, make_topic: MakeTopic) -> None:
    name = await make_topic(24)
    await producer.send(name, numbered(range(500)))
    lags = await lag(admin, f"g.{name}", [name])
    started = time.monotonic()
    oldest = await oldest_unread_timestamp_ms(admin, lags, timeout=60)
    print(f"the oldest of 24 partitions in {(time.monotonic() - started) * 1e3:.0f} ms")

    assert {at for at, at_ms in oldest.items() if at_ms is not None} == {each.at for each in lags if each.records}


async def test_a_topic_that_does_not_exist_has_no_lag(admin: Admin) -> None:
    assert await lag(admin, "g.none", ["test.never-made"]) == []


async def test_not_knowing_the_oldest_record_is_an_error_not_an_answer(admin: Admin, make_topic: MakeTopic) -> None:
    name = await make_topic(1)
    # Claims ten records that the topic doesn't have, like a topic that was wiped between the two questions.
    lags = [PartitionLag(name, 0, committed=None, low=0, high=10)]

    with pytest.raises(BrokerUnavailableError):
        await oldest_unread_timestamp_ms(admin, lags, timeout=0.5)
