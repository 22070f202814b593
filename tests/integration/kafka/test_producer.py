import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.producer import Producer
from tests.integration.kafka.conftest import MakeTopic, consume, consume_until, numbered, numbers
from tests.support.eventually import eventually
from tests.unit.runtime.observing import counted


async def test_a_lone_record_is_acknowledged_without_waiting_for_company(
    producer: Producer, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await producer.send(topic, numbered([0]))
    seconds = []
    for number in range(30):
        started = time.perf_counter()
        await producer.send(topic, numbered([number]))
        seconds.append(time.perf_counter() - started)
    print(f"acknowledged: p50 {statistics.median(seconds) * 1e3:.1f} ms, max {max(seconds) * 1e3:.1f} ms")

    assert producer.queued == 0
    assert producer.oldest_unacknowledged_seconds == 0.0


async def test_key_value_and_headers_arrive_as_they_were_sent(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    began_ms = int(time.time() * 1_000)
    await producer.send(topic, [(b"tenant", b"\x00\xff", [("a", b"1"), ("a", b"2")]), (None, None, None)])
    async with Consumer(bootstrap, group=f"g.{topic}", topics=[topic]) as consumer:
        first, second = await consume(consumer, 2)

    assert (first.key, first.value, first.headers) == (b"tenant", b"\x00\xff", (("a", b"1"), ("a", b"2")))
    assert (second.key, second.value, second.headers) == (None, None, ())
    assert began_ms <= first.timestamp_ms <= time.time() * 1_000


async def test_a_key_lands_in_the_partition_that_javas_producer_would_choose(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    topic = await make_topic(24)
    key = b"0190d3a8-0000-7000-8000-000000000001"
    await producer.send(topic, [(key, b"x", None)])
    async with Consumer(bootstrap, group=f"g.{topic}", topics=[topic]) as consumer:
        (record,) = await consume(consumer, 1)

    assert record.partition == (_murmur2(key) & 0x7FFFFFFF) % 24


async def test_many_batches_at_once_are_all_acknowledged_and_keep_their_order_per_partition(
    bootstrap: str, producer: Producer, make_topic: MakeTopic
) -> None:
    topic = await make_topic(4)
    batches = [numbered(range(start, start + 500)) for start in range(0, 20_000, 500)]
    await asyncio.gather(*(producer.start_send(topic, batch) for batch in batches))
    async with Consumer(bootstrap, group=f"g.{topic}", topics=[topic]) as consumer:
        records = await consume(consumer, 20_000)

    assert sorted(numbers(records)) == list(range(20_000))
    for partition in range(4):
        mine = numbers(record for record in records if record.partition == partition)
        assert mine == sorted(mine)


async def test_a_topic_that_does_not_exist_is_unknown_and_harms_no_other(
    producer: Producer, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    missing = producer.start_send("test.never-made", numbered([1]))
    await producer.send(topic, numbered([1]))

    with pytest.raises(BrokerUnavailableError, match=r"test\.never-made"):
        await missing


async def test_a_record_that_is_too_large_fails_its_batch_at_once(producer: Producer, make_topic: MakeTopic) -> None:
    topic = await make_topic(1)
    with counted("barnabas_produced_total", outcome="unknown") as unknown, pytest.raises(BrokerUnavailableError):
        await producer.send(topic, [(b"k", b"x" * 5_000_000, None), *numbered([1])])

    assert unknown() == 2
    assert producer.queued == 0
    await producer.send(topic, numbered([2]))


async def test_while_kafka_is_away_the_producer_stops_accepting_and_what_it_holds_becomes_unknown() -> None:
    # Port 9 is discard: nothing listens there.
    async with Producer("127.0.0.1:9", delivery_timeout_seconds=1.5) as producer:
        sent = producer.start_send("any", numbered(range(10)))
        [waiting] = producer._open.values()
        accepting = [producer.accepting]
        # Nothing is settled before the loop turns.
        for seconds in (0.5, 0.6):
            waiting.started -= seconds
            accepting.append(producer.accepting)
        with pytest.raises(BrokerUnavailableError):
            await sent

        assert accepting == [True, True, False]
        assert producer.queued == 0
        assert producer.accepting


async def test_twenty_thousand_waiting_records_are_enough() -> None:
    async with Producer("127.0.0.1:9", delivery_timeout_seconds=1.0) as producer:
        sent = [producer.start_send("any", numbered(range(5_000))) for _ in range(4)]

        assert producer.queued == 20_000
        assert not producer.accepting
        for each in sent:
            with pytest.raises(BrokerUnavailableError):
                await each


async def test_more_records_than_the_client_can_queue_wait_their_turn(
    producer: Producer, make_topic: MakeTopic
) -> None:
    topic = await make_topic(4)
    sent = [producer.start_send(topic, numbered(range(50_000))) for _ in range(4)]
    assert producer.queued == 200_000
    await asyncio.gather(*sent)

    assert producer.queued == 0


class Breaking:
    """A client that breaks as the library's own does when idempotence is lost: nothing outside of it can bring that
    about on demand."""

    def __init__(self, client: Any, way: str, on_error: Callable[[KafkaError], None]) -> None:
        self._client = client
        self._way = way
        self._on_error = on_error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def poll(self, timeout: float) -> int:
        if self._way == "callback":
            self._on_error(KafkaError(KafkaError._FATAL, "fatal error, told to the callback", fatal=True))
        elif self._way == "poll":
            raise KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "fatal error, raised", fatal=True))
        # Nothing is served any more: what it has sent may be there or not, and nobody hears of it.
        return 0

    def produce(self, *arguments: Any, **options: Any) -> None:
        if self._way == "produce":
            raise KafkaException(KafkaError(KafkaError._FATAL, "fatal error, on the way in"))
        self._client.produce(*arguments, **options)


@pytest.mark.parametrize("way", ["callback", "poll", "produce"])
async def test_a_broken_client_is_replaced_and_what_it_held_is_unknown(
    bootstrap: str, producer: Producer, make_topic: MakeTopic, way: str
) -> None:
    topic = await make_topic(1)
    await producer.send(topic, numbered([0]))
    # Held for five seconds by the client itself: no acknowledgement can come first.
    held = producer.start_send("test.never-made", numbered([1]))
    producer._client = Breaking(producer._client, way, producer._on_error)
    waiting = producer.start_send(topic, numbered([2]))
    for each in (held, waiting):
        with pytest.raises(BrokerUnavailableError, match="fatal error"):
            await each
    await producer.send(topic, numbered([3]))
    async with Consumer(bootstrap, group=f"g.{topic}", topics=[topic]) as consumer:
        arrived = await consume_until(consumer, lambda records: 3 in numbers(records))

    assert producer.accepting
    assert set(numbers(arrived)) >= {0, 3}


async def test_nothing_is_accepted_while_a_client_is_broken(producer: Producer) -> None:
    producer._on_error(KafkaError(KafkaError._FATAL, "fatal error", fatal=True))

    assert not producer.accepting
    await eventually(lambda: producer.accepting)


async def test_closing_fails_what_was_not_acknowledged() -> None:
    producer = Producer("127.0.0.1:9")
    sent = producer.start_send("any", numbered([1]))
    await producer.close(timeout=0.05)

    with pytest.raises(BrokerUnavailableError):
        await sent
    with pytest.raises(BrokerUnavailableError):
        producer.start_send("any", numbered([2]))


def _murmur2(data: bytes) -> int:
    """Kafka's murmur2 as in its Java client, `org.apache.kafka.common.utils.Utils.murmur2`, unsigned."""
    mask = 0xFFFFFFFF
    m, r = 0x5BD1E995, 24
    h = (0x9747B28C ^ len(data)) & mask
    for i in range(0, len(data) - len(data) % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> r)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[len(data) - len(data) % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)
