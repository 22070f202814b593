"""Topics of one's own on the session's Kafka, and a wait for records."""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

import pytest

from barnabas.contract.topics import Topic
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord
from barnabas.kafka.producer import Producer
from tests.support.eventually import at_last
from tests.support.servers import Servers

MakeTopic = Callable[[int], Awaitable[str]]
_HOUR_MS = 3_600_000


@pytest.fixture
def bootstrap(servers: Servers) -> str:
    return servers.kafka


@pytest.fixture
async def admin(bootstrap: str) -> AsyncIterator[Admin]:
    async with Admin(bootstrap) as opened:
        yield opened


@pytest.fixture
async def make_topic(admin: Admin) -> AsyncIterator[MakeTopic]:
    """Makes topics that nobody else uses, by number of partitions."""
    made: list[str] = []

    async def make(partitions: int) -> str:
        name = f"test.{secrets.token_hex(6)}"
        made.append(name)
        await admin.ensure_topics(topics=[topic(name, partitions)])
        return name

    yield make
    await admin.delete_topics(made)


@pytest.fixture
async def producer(bootstrap: str) -> AsyncIterator[Producer]:
    # What a starved machine takes for two hundred thousand records is no matter of these tests.
    async with Producer(bootstrap, delivery_timeout_seconds=60) as opened:
        yield opened


def topic(name: str, partitions: int) -> Topic:
    return Topic(name, "tenant", _HOUR_MS, partitions=partitions)


def numbered(numbers: Iterable[int]) -> list[tuple[bytes, bytes, None]]:
    """Records whose value is their number, spread over keys."""
    return [(str(number % 53).encode(), str(number).encode(), None) for number in numbers]


def numbers(records: Iterable[ConsumedRecord]) -> list[int]:
    return [int(record.value or b"") for record in records]


async def consume_until(
    consumer: Consumer, enough: Callable[[list[ConsumedRecord]], bool], *, limit_seconds: float = 90.0
) -> list[ConsumedRecord]:
    """Everything that arrives until `enough` of it is there; fails when that takes too long."""
    records: list[ConsumedRecord] = []
    deadline = time.monotonic() + limit_seconds
    while not enough(records):
        assert time.monotonic() < deadline, f"only {len(records)} records arrived in {limit_seconds} s"
        records += await consumer.get(1_000, timeout=0.5)
    return records


async def send_at_last(producer: Producer, name: str, records: Sequence[tuple[bytes, bytes, None]]) -> None:
    """Send to a topic that was just made again: a client that looked in between refuses it until it looks again."""
    await at_last(lambda: producer.send(name, records), refused=BrokerUnavailableError)


async def consume(consumer: Consumer, count: int, *, limit_seconds: float = 90.0) -> list[ConsumedRecord]:
    return await consume_until(consumer, lambda records: len(records) >= count, limit_seconds=limit_seconds)
