"""A process that measures what this Kafka gives anyone: records of 1 KB produced and consumed, with the same settings.

Reads an order from stdin and answers with records a second for each window, as JSON.
"""

import secrets
import sys
import time
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

_PARTITIONS = 4
_VALUE = b'{"type":"echo","payload":{"pad":"' + b"x" * 980 + b'"}}'
_KEYS = [secrets.token_hex(18).encode() for _ in range(50)]
_LIMIT_SECONDS = 60.0


class KafkaLimitOrder(msgspec.Struct, kw_only=True):
    """Where, and for how long each of the two."""

    kafka: str
    windows: int
    window_seconds: float


class KafkaLimit(msgspec.Struct, kw_only=True):
    """Records a second, window by window."""

    produce: list[float]
    consume: list[float]


def measure(order: KafkaLimitOrder) -> KafkaLimit:
    """Produce with a callback per record, acks=all and idempotence; then consume and decode."""
    topic = f"bench.{secrets.token_hex(4)}"
    admin = AdminClient({"bootstrap.servers": order.kafka})
    for answer in admin.create_topics([NewTopic(topic, _PARTITIONS, 1)]).values():
        answer.result(_LIMIT_SECONDS)
    try:
        return KafkaLimit(produce=_produce(order, topic), consume=_consume(order, topic))
    finally:
        for answer in admin.delete_topics([topic]).values():
            answer.result(_LIMIT_SECONDS)


def _produce(order: KafkaLimitOrder, topic: str) -> list[float]:
    acknowledged = 0

    def report(error: Any, _record: Any) -> None:
        nonlocal acknowledged
        assert error is None, error
        acknowledged += 1

    producer = Producer(
        {
            "bootstrap.servers": order.kafka,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 20_000,
        }
    )
    # Connections and the producer's id are made with the first record.
    producer.produce(topic, _VALUE, _KEYS[0], on_delivery=report)
    assert producer.flush(_LIMIT_SECONDS) == 0
    rates = []
    for _ in range(order.windows):
        before, begin = acknowledged, time.monotonic()
        # A window in which a busy broker acknowledges nothing lasts until it does.
        while time.monotonic() < begin + order.window_seconds or acknowledged == before:
            for key in _KEYS:
                try:
                    producer.produce(topic, _VALUE, key, on_delivery=report)
                except BufferError:
                    producer.poll(0.01)
            producer.poll(0)
        rates.append((acknowledged - before) / (time.monotonic() - begin))
    assert producer.flush(_LIMIT_SECONDS) == 0
    return rates


def _consume(order: KafkaLimitOrder, topic: str) -> list[float]:
    rates = []
    decoder = msgspec.json.Decoder()
    for _ in range(order.windows):
        consumer = Consumer({"bootstrap.servers": order.kafka, "group.id": topic, "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, number, 0) for number in range(_PARTITIONS)])
        count, begin = len(consumer.consume(1, _LIMIT_SECONDS)), time.monotonic()
        while time.monotonic() < begin + order.window_seconds:
            records = consumer.consume(500, 0.5)
            for record in records:
                decoder.decode(record.value() or b"")
            count += len(records)
            if not records:
                break  # all of it has been read
        rates.append(count / (time.monotonic() - begin))
        consumer.close()
    return rates


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(measure(msgspec.json.decode(sys.stdin.buffer.read(), type=KafkaLimitOrder)))
    )
