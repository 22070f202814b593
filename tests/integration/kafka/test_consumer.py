import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from barnabas.errors import DatabaseUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.lag import lag
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.kafka.producer import Producer
from tests.integration.kafka.conftest import (
    MakeTopic,
    consume,
    consume_until,
    numbered,
    numbers,
    send_at_last,
    topic,
)
from tests.support.eventually import eventually
from tests.unit.runtime.observing import counted

CLASSIC = ConsumerOptions(group_protocol="classic")
KIP_848 = ConsumerOptions()
BOTH_PROTOCOLS = pytest.mark.parametrize("options", [KIP_848, CLASSIC], ids=["consumer", "classic"])


@BOTH_PROTOCOLS
async def test_what_was_committed_is_not_read_again_and_the_rest_is(
    bootstrap: str, producer: Producer, make_topic: MakeTopic, options: ConsumerOptions
) -> None:
    name = await make_topic(1)
    await producer.send(name, numbered(range(100)))
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name], options=options) as consumer:
        await consume(consumer, 100)
        consumer.commit({TopicPartition(name, 0): 60})
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name], options=options) as consumer:
        records = await consume(consumer, 40)

    assert numbers(records) == list(range(60, 100))


@BOTH_PROTOCOLS
async def test_two_members_share_the_partitions_and_lose_nothing(
    bootstrap: str, producer: Producer, make_topic: MakeTopic, options: ConsumerOptions
) -> None:
    name = await make_topic(4)
    assigned = asyncio.Event()
    async with (
        Consumer(bootstrap, group=f"g.{name}", topics=[name], options=options) as first,
    ):
        await producer.send(name, numbered(range(200)))
        seen = numbers(await consume(first, 200))
        async with Consumer(
            bootstrap, group=f"g.{name}", topics=[name], options=options, on_assigned=lambda _: assigned.set()
        ) as second:
            async with asyncio.timeout(90):
                await assigned.wait()
            shares = await eventually(
                lambda: sorted([*_held(first), *_held(second)]), until=lambda held: held == [0, 1, 2, 3]
            )
            # Nothing was committed: the second member begins its share from the start.
            again = await consume_until(second, lambda records: {r.partition for r in records} >= _held(second))

            assert _held(first)
            assert _held(second)
    assert shares == [0, 1, 2, 3]
    assert sorted(seen) == list(range(200))
    assert set(numbers(again)) <= set(range(200))


async def test_a_record_read_before_a_rebalance_is_no_longer_current(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(2)
    revoked: asyncio.Queue[Sequence[TopicPartition]] = asyncio.Queue()

    async def on_revoked(partitions: Sequence[TopicPartition], lost: bool) -> Mapping[TopicPartition, int]:
        assert not lost
        revoked.put_nowait(partitions)
        return {}

    await producer.send(name, numbered(range(100)))
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name], on_revoked=on_revoked) as first:
        records = await consume(first, 100)
        async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as second:
            async with asyncio.timeout(90):
                (gone,) = await revoked.get()
            await consume(second, 1)

            assert {first.is_current(record) for record in records if record.at == gone} == {False}
            assert {first.is_current(record) for record in records if record.at != gone} == {True}


async def test_offsets_given_at_the_revocation_are_committed_before_the_partition_moves(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)

    async def on_revoked(partitions: Sequence[TopicPartition], _lost: bool) -> Mapping[TopicPartition, int]:
        # What was in flight ends now, and its verdict counts.
        return dict.fromkeys(partitions, 70)

    # Time enough for a loop that stood still to be asked.
    options = ConsumerOptions(revoke_limit_seconds=14)
    await producer.send(name, numbered(range(100)))
    async with Consumer(
        bootstrap, group=f"g.{name}", topics=[name], options=options, on_revoked=on_revoked
    ) as consumer:
        await consume(consumer, 100)
        consumer.commit({TopicPartition(name, 0): 30})
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        records = await consume(consumer, 30)

    assert numbers(records) == list(range(70, 100))


async def test_partitions_that_went_while_the_loop_stood_still_are_held_no_more(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    await producer.send(name, numbered(range(10)))
    options = ConsumerOptions(revoke_limit_seconds=0.1)
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name], options=options) as consumer:
        records = await consume(consumer, 10)
        held = consumer.assignment
        # Asked on the loop's own thread, which can't answer meanwhile.
        offsets = consumer._thread._give_up(list(held), lost=False)
        await eventually(lambda: not consumer.assignment)

        assert offsets == {}
        assert held == {TopicPartition(name, 0)}
        assert not any(consumer.is_current(record) for record in records)


async def test_partitions_that_came_back_while_the_loop_stood_still_are_held(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    at = TopicPartition(name, 0)
    await producer.send(name, numbered(range(10)))
    revoked: list[TopicPartition] = []

    async def on_revoked(partitions: Sequence[TopicPartition], _lost: bool) -> None:
        revoked.extend(partitions)

    options = ConsumerOptions(revoke_limit_seconds=0.1)
    async with Consumer(
        bootstrap, group=f"g.{name}", topics=[name], options=options, on_revoked=on_revoked
    ) as consumer:
        await consume(consumer, 10)
        # Both on the loop's own thread, which can't turn meanwhile.
        consumer._thread._give_up([at], lost=False)
        epoch = consumer.next_epoch()
        consumer._thread._tell(consumer.assigned, {at: epoch})
        await eventually(lambda: at in consumer.assignment and consumer._epochs[at] == epoch)

        assert consumer.assignment == {at}
        assert not revoked


async def test_reading_starts_where_start_offsets_says_whatever_the_group_has_committed(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    at = TopicPartition(name, 0)
    await producer.send(name, numbered(range(100)))
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        await consume(consumer, 100)
        consumer.commit({at: 90})

    async def start_offsets(partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        assert list(partitions) == [at]
        return {at: 40}

    async with Consumer(bootstrap, group=f"g.{name}", topics=[name], start_offsets=start_offsets) as consumer:
        records = await consume(consumer, 60)

    assert numbers(records) == list(range(40, 100))


async def test_a_group_whose_offsets_somebody_else_keeps_has_no_lag_on_what_it_need_not_read(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    await producer.send(name, numbered(range(10)))

    async def start_offsets(partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 10)

    async with (
        Consumer(bootstrap, group=f"g.{name}", topics=[name], start_offsets=start_offsets),
        Admin(bootstrap) as admin,
    ):
        await eventually(
            lambda: lag(admin, f"g.{name}", [name]), until=lambda lags: [each.records for each in lags] == [0]
        )


async def test_nothing_is_delivered_while_start_offsets_are_unknown(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    asked = 0

    async def start_offsets(partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise DatabaseUnavailableError
        return dict.fromkeys(partitions, 5)

    await producer.send(name, numbered(range(10)))
    with counted("barnabas_rebalances_total", group=f"g.{name}", event="rebuilt") as rebuilt:
        async with Consumer(bootstrap, group=f"g.{name}", topics=[name], start_offsets=start_offsets) as consumer:
            records = await consume(consumer, 5)

    assert numbers(records) == [5, 6, 7, 8, 9]
    assert asked == 3
    assert rebuilt() == 2


async def test_after_a_seek_older_records_are_stale_and_reading_goes_on_there(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    await producer.send(name, numbered(range(100)))
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        before = await consume(consumer, 50)
        consumer.seek(TopicPartition(name, 0), 20)
        after = await consume(consumer, 80)

    assert not any(consumer.is_current(record) for record in before)
    assert numbers(after) == list(range(20, 100))


async def test_a_full_inbox_stops_reading_and_loses_nothing(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(2)
    options = ConsumerOptions(inbox_records=300)
    await producer.send(name, numbered(range(10_000)))
    with counted("barnabas_consumer_pauses_total", group=f"g.{name}") as pauses:
        async with Consumer(bootstrap, group=f"g.{name}", topics=[name], options=options) as consumer:
            records = await consume(consumer, 1)
            await eventually(pauses)
            # One batch of 500 may be read in the round that finds the inbox full.
            assert consumer.queued <= 300 + 500
            records += await consume(consumer, 10_000 - len(records))

    assert sorted(numbers(records)) == list(range(10_000))


async def test_a_paused_partition_is_silent_until_it_is_resumed(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(2)
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        await producer.send(name, numbered(range(100)))
        await consume(consumer, 100)
        consumer.pause([TopicPartition(name, 0)])
        # It is asked of another thread: what is read before that has looked is still delivered.
        await eventually(lambda: TopicPartition(name, 0) in consumer._thread._paused_by_caller)
        await producer.send(name, numbered(range(100)))
        partition_1 = [r for r in await consume_until(consumer, _has(partition=1)) if r.partition == 0]
        silence = await consumer.get(1_000, timeout=1.0)
        consumer.resume([TopicPartition(name, 0)])
        resumed = await consume_until(consumer, _has(partition=0))

    assert partition_1 == []
    assert all(record.partition == 1 for record in silence)
    assert resumed


@BOTH_PROTOCOLS
async def test_a_paused_partition_that_left_and_came_back_is_read(
    bootstrap: str, producer: Producer, make_topic: MakeTopic, options: ConsumerOptions
) -> None:
    name = await make_topic(2)
    moves: asyncio.Queue[str] = asyncio.Queue()

    async def on_revoked(_partitions: Sequence[TopicPartition], _lost: bool) -> None:
        moves.put_nowait("revoked")

    async with Consumer(
        bootstrap,
        group=f"g.{name}",
        topics=[name],
        options=options,
        on_assigned=lambda _: moves.put_nowait("assigned"),
        on_revoked=on_revoked,
    ) as first:
        async with asyncio.timeout(120):
            assert await moves.get() == "assigned"
            first.pause(first.assignment)
            async with Consumer(bootstrap, group=f"g.{name}", topics=[name], options=options):
                assert await moves.get() == "revoked"
                (kept,) = first.assignment
            assert await moves.get() == "assigned"
            (back,) = first.assignment - {kept}
        await producer.send(name, numbered(range(100)))
        records = await consume_until(first, _has(partition=back.partition))

        assert {record.partition for record in records} == {back.partition}


@pytest.mark.parametrize("away_seconds", [0.0, 2.0])
async def test_a_topic_that_was_wiped_and_made_again_is_read_from_its_start(
    bootstrap: str, admin: Admin, producer: Producer, make_topic: MakeTopic, away_seconds: float
) -> None:
    name = await make_topic(1)
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        await producer.send(name, numbered(range(1_000)))
        await consume(consumer, 1_000)
        consumer.commit({TopicPartition(name, 0): 1_000})
        await admin.delete_topics([name])
        await asyncio.sleep(away_seconds)
        await admin.ensure_topics(topics=[topic(name, 1)])
        await send_at_last(producer, name, numbered(range(10)))
        records = await consume(consumer, 10)

        assert numbers(records) == list(range(10))
        assert [record.offset for record in records] == list(range(10))
        assert all(consumer.is_current(record) for record in records)
        consumer.commit({TopicPartition(name, 0): 10})
        # A commit that meets the group in the middle of a move is tried again.
        await eventually(
            lambda: lag(admin, f"g.{name}", [name]), until=lambda lags: [each.committed for each in lags] == [10]
        )


async def test_a_consumer_waits_for_a_topic_that_is_made_later(
    bootstrap: str, admin: Admin, producer: Producer
) -> None:
    name = "test.made-later"
    await admin.delete_topics([name])
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        assert await consumer.get(10, timeout=1.0) == []
        await admin.ensure_topics(topics=[topic(name, 1)])
        await producer.send(name, numbered(range(3)))
        records = await consume(consumer, 3)
    await admin.delete_topics([name])

    assert numbers(records) == [0, 1, 2]


async def test_closing_wakes_whoever_waits_for_records(bootstrap: str, make_topic: MakeTopic) -> None:
    name = await make_topic(1)
    async with asyncio.timeout(60):
        consumer = Consumer(bootstrap, group=f"g.{name}", topics=[name])
        async with consumer, asyncio.TaskGroup() as group:
            waiting = group.create_task(consumer.get(10, timeout=600))
            group.create_task(consumer.close())

        assert waiting.result() == []


def _held(consumer: Consumer) -> set[int]:
    return {at.partition for at in consumer.assignment}


def _has(*, partition: int) -> Callable[[list[ConsumedRecord]], bool]:
    return lambda records: any(record.partition == partition for record in records)


async def test_a_reader_that_waits_is_woken_with_nothing(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    async with Consumer(bootstrap, group=f"g.{name}", topics=[name]) as consumer:
        reading = asyncio.create_task(consumer.get(10, 60.0))
        await asyncio.sleep(0)
        consumer.wake()
        async with asyncio.timeout(50):
            assert await reading == []
        # It goes on reading as before.
        await producer.send(name, numbered(range(3)))
        assert numbers(await consume(consumer, 3)) == [0, 1, 2]


async def test_in_a_stream_a_consumer_that_may_hold_loses_nothing_and_keeps_the_order(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    name = await make_topic(1)
    async with Consumer(
        bootstrap, group=f"g.{name}", topics=[name], options=ConsumerOptions(hold_seconds=0.02)
    ) as consumer:
        for start in range(0, 20_000, 500):
            await producer.send(name, numbered(range(start, start + 500)))
        records = await consume(consumer, 20_000)

    assert numbers(records) == list(range(20_000))
