"""The writer's side of the outbox on a real broker: which rows may be deleted, and which stay for the relay."""

import asyncio

import pytest

from barnabas.kafka.consumer import Consumer
from barnabas.kafka.producer import Producer
from barnabas.kafka.teller import Teller
from tests.integration.kafka.conftest import MakeTopic, consume, numbers
from tests.support.eventually import eventually

# Port 9 is discard: nothing listens there.
NOBODY = "127.0.0.1:9"
# The broker takes records of up to 1 MiB.
TOO_LARGE = b"x" * (5 * 1024 * 1024)


async def test_a_row_may_be_deleted_once_all_its_records_are_acknowledged(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    one, other = await make_topic(1), await make_topic(1)
    teller = Teller(producer)

    teller.tell(7, [(one, b"k", b"1"), (other, b"k", b"2"), (one, b"k", b"3", [("reason", b"r")])])
    async with asyncio.timeout(60):
        await teller.wait()

    assert teller.pending
    assert teller.take_acknowledged() == [7]
    assert teller.take_acknowledged() == []
    async with Consumer(bootstrap, group=f"g.{one}", topics=[one, other]) as consumer:
        arrived = await consume(consumer, 3)
    assert sorted(numbers(arrived)) == [1, 2, 3]
    assert {record.value: record.headers for record in arrived}[b"3"] == (("reason", b"r"),)


async def test_a_row_is_handed_out_for_deletion_once(producer: Producer, make_topic: MakeTopic) -> None:
    topic = await make_topic(1)
    teller = Teller(producer)

    for row in range(20):
        teller.tell(row, [(topic, b"k", b"v")])
    await eventually(lambda: producer.queued == 0)
    await teller.wait()
    first, second = teller.take_acknowledged(), teller.take_acknowledged()

    assert sorted(first) == list(range(20))
    assert second == []


async def test_rows_whose_deletion_failed_are_handed_out_again(producer: Producer, make_topic: MakeTopic) -> None:
    teller = Teller(producer)
    teller.tell(1, [(await make_topic(1), b"k", b"v")])
    await teller.wait()
    taken = teller.take_acknowledged()

    teller.untaken(taken)

    assert teller.pending
    async with asyncio.timeout(1):
        await teller.wait()
    assert teller.take_acknowledged() == [1]


async def test_giving_nothing_back_wakes_nobody(producer: Producer) -> None:
    teller = Teller(producer)

    teller.untaken([])

    assert not teller.pending
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await teller.wait()


async def test_a_row_that_tells_nothing_any_more_may_be_deleted_at_once(producer: Producer) -> None:
    teller = Teller(producer)

    teller.tell(3, [])

    assert teller.take_acknowledged() == [3]


async def test_a_row_stays_when_only_some_of_its_records_arrived(producer: Producer, make_topic: MakeTopic) -> None:
    fine, refused = await make_topic(1), await make_topic(1)
    teller = Teller(producer)

    teller.tell(1, [(fine, b"k", b"1"), (refused, b"k", TOO_LARGE)])
    teller.tell(2, [(fine, b"k", b"2")])
    await eventually(lambda: producer.queued == 0)
    await teller.wait()

    assert teller.take_acknowledged() == [2]


async def test_without_a_broker_telling_neither_waits_nor_fails_and_the_row_stays() -> None:
    async with Producer(NOBODY, delivery_timeout_seconds=0.3) as producer:
        teller = Teller(producer)

        teller.tell(1, [("t", b"k", b"v")])
        await eventually(lambda: producer.queued == 0)

        assert not teller.pending


async def test_while_kafka_is_away_rows_are_left_to_the_relay() -> None:
    async with Producer(NOBODY, delivery_timeout_seconds=120) as producer:
        teller = Teller(producer)
        teller.tell(1, [("t", b"k", b"v")])
        await eventually(lambda: not producer.accepting)

        for row in range(2, 1_000):
            teller.tell(row, [("t", b"k", b"v")] * 100)

        # What waits for Kafka doesn't grow, however long it is away.
        assert producer.queued == 1
        assert not teller.pending
        await producer.close(timeout=0.1)


async def test_what_a_busy_producer_refuses_is_told_as_soon_as_it_accepts_again(
    bootstrap: str, producer: Producer, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A starved broker may need longer for the first two thirds than a writer would hold the rest.
    monkeypatch.setattr("barnabas.kafka.teller._HELD_SECONDS", 60.0)
    topic = await make_topic(1)
    teller = Teller(producer)

    # More than the producer takes at once: before the loop turns, nothing can be acknowledged.
    for row in range(300):
        teller.tell(row, [(topic, b"k", b"%d" % (100 * row + number)) for number in range(100)])
    assert not producer.accepting
    await eventually(lambda: not teller.busy or len(teller._acknowledged) == 300, timeout=60)

    assert sorted(teller.take_acknowledged()) == list(range(300))
    async with Consumer(bootstrap, group=f"g.{topic}", topics=[topic]) as consumer:
        assert numbers(await consume(consumer, 30_000)) == list(range(30_000))


async def test_a_closed_producer_is_no_error_for_whoever_tells(producer: Producer, make_topic: MakeTopic) -> None:
    topic = await make_topic(1)
    await producer.close()
    teller = Teller(producer)

    teller.tell(1, [(topic, b"k", b"v")])

    assert not teller.pending


async def test_who_told_is_busy_until_the_rows_are_taken_or_kafka_refused(
    producer: Producer, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    teller = Teller(producer)
    seen = [teller.busy]

    teller.tell(1, [(topic, b"k", b"1")])
    seen.append(teller.busy)
    await eventually(lambda: teller.pending)
    seen.append(teller.busy)
    teller.take_acknowledged()
    seen.append(teller.busy)
    teller.tell(2, [(topic, b"k", TOO_LARGE)])
    seen.append(teller.busy)
    await eventually(lambda: not teller.busy)

    assert seen == [False, True, True, False, True]
    assert not teller.pending
