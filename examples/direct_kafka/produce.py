"""Submit jobs by writing to Kafka: no HTTP request, the same JSON, the same guarantees."""
# ruff: noqa: T201 - printing is what this script is for

import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, Message, Producer

TOPIC = "barnabas.intake"


def record(tenant: str, api_key: str, job: dict[str, Any], *, idempotency_key: str) -> dict[str, Any]:
    """One job as arguments of `Producer.produce`. The key must be the tenant of the credential."""
    return {
        "topic": TOPIC,
        "key": tenant.encode(),
        "value": json.dumps(job).encode(),
        "headers": [("authorization", api_key.encode()), ("idempotency-key", idempotency_key.encode())],
    }


def main(count: str = "3", stack_file: str = ".barnabas/stack.json") -> None:
    """Write `count` echo jobs and wait until Kafka has them."""
    stack = json.loads(Path(stack_file).read_text())
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": stack["kafka"],
            "enable.idempotence": True,
            # The partitioner of all of Barnabas, and Java's default: one tenant, one partition.
            "partitioner": "murmur2_random",
        }
    )
    for number in range(int(count)):
        job = {"type": "echo", "payload": {"number": number}, "metadata": {"from": "kafka"}}
        producer.produce(
            **record(stack["tenant"], stack["api_key"], job, idempotency_key=str(uuid4())), on_delivery=delivered
        )
    left = producer.flush(30)
    if left or failures:
        sys.exit(f"{left + len(failures)} of {count} records did not reach Kafka: {failures[:1]}")
    print(f"{count} jobs are in {TOPIC}; see them with: barnabas jobs list")


if __name__ == "__main__":
    main(*sys.argv[1:])
