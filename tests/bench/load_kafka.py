"""A process that submits jobs by writing to the intake topic: an order from stdin, what it saw on stdout, as JSON."""

import sys
import time
from typing import Any

import msgspec
from confluent_kafka import Producer

from barnabas.contract.topics import INTAKE
from tests.bench.ended import EndedJobs

_PAUSE_SECONDS = 0.005
_FLUSH_SECONDS = 30.0
_PORTION = 100


class KafkaOrder(msgspec.Struct, kw_only=True):
    """What to write. Ends after `seconds`, or after `jobs` where that is sooner."""

    kafka: str
    tenants: list[tuple[str, str]]
    """Ids and API keys; portions of records take them in turn."""
    job_type: str
    pad_bytes: int
    seconds: float
    jobs: int | None = None
    outstanding: int | None = None
    """At most so many jobs written and not ended."""


class KafkaSeen(msgspec.Struct, kw_only=True):
    """What the broker acknowledged."""

    acknowledged: int
    seconds: float
    cpu_seconds: float


def write(order: KafkaOrder) -> KafkaSeen:
    """Carry out the order."""
    failures: list[Any] = []
    acknowledged = 0

    def report(error: Any, _record: Any) -> None:
        nonlocal acknowledged
        if error is None:
            acknowledged += 1
        else:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": order.kafka,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
        }
    )
    ended = EndedJobs(order.kafka)
    before = ended.count()
    value = b'{"type":"%b","payload":{"sent":0.0,"pad":"%b"}}' % (order.job_type.encode(), b"x" * order.pad_bytes)
    headed: list[tuple[bytes, list[tuple[str, str | bytes | None]]]] = [
        (tenant.encode(), [("authorization", key.encode())]) for tenant, key in order.tenants
    ]
    begin, cpu = time.monotonic(), time.process_time()
    written = turn = done = 0
    while time.monotonic() < begin + order.seconds and (order.jobs is None or written < order.jobs):
        if order.outstanding is not None and written + _PORTION - done > order.outstanding:
            producer.poll(0)
            time.sleep(_PAUSE_SECONDS)
            done = ended.count() - before
            continue
        key, headers = headed[turn % len(headed)]
        for _ in range(_PORTION):
            producer.produce(INTAKE.name, value, key, headers=headers, on_delivery=report)
        producer.poll(0)
        turn += 1
        written += _PORTION
    producer.flush(_FLUSH_SECONDS)
    if failures or acknowledged != written:
        raise RuntimeError(f"{written - acknowledged} of {written} records did not reach Kafka: {failures[:1]}")
    return KafkaSeen(acknowledged=acknowledged, seconds=time.monotonic() - begin, cpu_seconds=time.process_time() - cpu)


def main() -> None:
    """Carry out the order on stdin."""
    seen = write(msgspec.json.decode(sys.stdin.buffer.read(), type=KafkaOrder))
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()
