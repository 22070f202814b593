"""Kafka comes back with nothing in it while jobs wait: all of them are published again by themselves, and run.

The jobs are of a queue that no worker serves at first, so that each of them is open, and its record gone, when it
happens. What counts as published again is each job's own record, read from the new topic.
"""

import asyncio
import shutil
import signal
import time
import uuid
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from barnabas.contract.records import decode
from barnabas.contract.topics import topics_of_queue
from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import settled
from tests.chaos.scenarios.door import Tenant, make_tenants
from tests.chaos.scenarios.instruments import a_stack, another, kafka_answers, until_well
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.topics import TopicReader

_BATCH = 500
_AGAIN_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How many jobs are open."""

    jobs: int


QUICK = Plan(jobs=2_000)
FULL = Plan(jobs=100_000)


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """Accept, wipe, wait for every record, then run what waited."""
    queue = f"wiped-{uuid.uuid4().hex[:8]}"
    async with a_stack(running) as stack:
        await until_well(stack)
        tenants = await make_tenants(stack, 8, "kafka-wiped")
        ids = await _submit(stack, tenants, queue, plan.jobs)
        killed_at = time.monotonic()
        await _wipe(stack)
        back_at = await kafka_answers(stack.told["kafka"])
        await _all_told(stack.told["kafka"], queue, ids)
        told_at = time.monotonic()
        async with another(stack, "worker", {"BARNABAS_QUEUES": queue}), stack.database() as database:
            books = await settled(database, tenants, timeout=_AGAIN_SECONDS)
        await until_well(stack)
    return [
        once("kafka_wiped.jobs", "open jobs when Kafka was killed and its data deleted", "jobs", len(ids)),
        once("kafka_wiped.down", "until an empty Kafka answered", "s", back_at - killed_at),
        once("kafka_wiped.again", "from there until each job had its record again", "s", told_at - back_at),
        *books.figures("kafka_wiped", ids),
    ]


async def _submit(stack: Stack, tenants: list[Tenant], queue: str, count: int) -> list[str]:
    ids: list[str] = []
    share = count // len(tenants)
    for tenant in tenants:
        async with stack.client(tenant.key) as client:
            for start in range(0, share, _BATCH):
                jobs = [
                    {"type": "echo", "payload": n, "queue": queue} for n in range(start, min(share, start + _BATCH))
                ]
                ids += [str(verdict.id) for verdict in await client.submit_batch(jobs)]
    return ids


async def _wipe(stack: Stack) -> None:
    data = stack.directory / "kafka" / "log"
    stack.signal("kafka", signal.SIGKILL)
    await asyncio.to_thread(shutil.move, data, stack.directory / f"kafka-wiped-{uuid.uuid4().hex[:8]}")
    await eventually((data / "meta.properties").exists, timeout=120)


async def _all_told(kafka: str, queue: str, ids: list[str]) -> None:
    """Wait until the queue's new topic has a record of each of these jobs."""
    topic = topics_of_queue(queue)[1].name
    client = AdminClient({"bootstrap.servers": kafka, "log_level": 0})

    def is_there() -> bool:
        try:
            return topic in client.list_topics(timeout=5).topics
        except KafkaException:
            return False

    await eventually(lambda: asyncio.to_thread(is_there), timeout=_AGAIN_SECONDS)
    missing, read = set(ids), 0
    async with TopicReader(kafka, topic) as reader:

        def left() -> int:
            nonlocal read
            for record in reader.records[read:]:
                missing.discard(str(decode(record.value).ref_id))
            read = len(reader.records)
            return len(missing)

        await eventually(left, until=lambda count: count == 0, timeout=_AGAIN_SECONDS)
