"""How far a group is behind: in records, and by the age of the oldest record that it has not committed.

A delay tier has lag by design: neither alert nor scale on it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as _ClientPartition
from confluent_kafka import admin as _untyped

from barnabas.errors import BrokerUnavailableError
from barnabas.kafka import client_settings
from barnabas.kafka.admin import Admin
from barnabas.kafka.partitions import TopicPartition
from barnabas.runtime import metrics

# The library exports this name without types.
_OffsetSpec: Any = _untyped.OffsetSpec  # type: ignore[attr-defined]

_LIMIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition as a group sees it.

    `committed` is the next offset that the group will read, None before its first commit; `low` and `high` bound what
    the partition holds; `records` are the ones not committed and still there.
    """

    topic: str
    partition: int
    committed: int | None
    low: int
    high: int

    @property
    def at(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)

    @property
    def next_offset(self) -> int:
        """Where the group goes on reading."""
        return self.low if self.committed is None else min(max(self.committed, self.low), self.high)

    @property
    def records(self) -> int:
        """How many records the group is behind."""
        return self.high - self.next_offset


async def lag(admin: Admin, group: str, topics: Sequence[str]) -> list[PartitionLag]:
    """The group's lag on every partition of `topics`, in order; topics that don't exist are left out."""
    return await admin.call(lambda client: _lag(client, admin.bootstrap, group, topics))


async def oldest_unread_timestamp_ms(
    admin: Admin, lags: Sequence[PartitionLag], *, timeout: float = 10.0
) -> dict[TopicPartition, int | None]:
    """By partition, the timestamp of the record that the group reads next; None where it has read everything.

    Raises `BrokerUnavailableError` when a partition that lags gave no record in time: not to know is not None.
    """
    answer: dict[TopicPartition, int | None] = {each.at: None for each in lags}
    behind = {each.at: each.next_offset for each in lags if each.records > 0}
    if behind:
        try:
            answer |= await asyncio.to_thread(_read_timestamps, admin.bootstrap, behind, timeout)
        except KafkaException as error:
            raise BrokerUnavailableError(str(error.args[0])) from error
    return answer


async def report_lag(admin: Admin, group: str, topics: Sequence[str]) -> None:
    """Measure a group's lag and show it in the metrics, in records and in seconds."""
    lags = await lag(admin, group, topics)
    oldest = await oldest_unread_timestamp_ms(admin, lags)
    now_ms = time.time() * 1_000
    for topic in topics:
        mine = [each for each in lags if each.topic == topic]
        ages = [max(0.0, now_ms - at_ms) / 1_000 for each in mine if (at_ms := oldest[each.at]) is not None]
        metrics.consumer_lag_records.labels(group, topic).set(sum(each.records for each in mine))
        metrics.consumer_lag_seconds.labels(group, topic).set(max(ages, default=0.0))


def partitions_of(client: Any, topics: Sequence[str]) -> list[TopicPartition]:
    """The partitions of those topics that exist, in order."""
    existing = client.list_topics(timeout=_LIMIT_SECONDS).topics
    return [
        TopicPartition(topic, number)
        for topic in topics
        if topic in existing and existing[topic].error is None
        for number in sorted(existing[topic].partitions)
    ]


def committed_offsets(bootstrap: str, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """What the group has committed on these, where it has; a group that never was has committed nothing.

    Asked by a consumer that is no member. The admin client's own call ends the process, by an assertion or a bad
    access in the library, when the broker goes away while the group's coordinator is asked (librdkafka issue 4605).
    """
    if not partitions:
        return {}
    settings = client_settings.common(bootstrap, "barnabas-lag") | {"group.id": group, "enable.auto.commit": False}
    client: Any = Consumer(settings)
    try:
        told = client.committed([_ClientPartition(at.topic, at.partition) for at in partitions], _LIMIT_SECONDS)
    finally:
        client.close()
    for each in told:
        if each.error is not None:
            raise KafkaException(each.error)
    return {TopicPartition(each.topic, each.partition): each.offset for each in told if each.offset >= 0}


def bounds(client: Any, partitions: Sequence[TopicPartition], *, latest: bool) -> dict[TopicPartition, int]:
    """The offset of each partition's first record, or with `latest` the one that its next record will have."""
    if not partitions:
        return {}
    which = _OffsetSpec.latest() if latest else _OffsetSpec.earliest()
    asked = {_ClientPartition(at.topic, at.partition): which for at in partitions}
    told = client.list_offsets(asked, request_timeout=_LIMIT_SECONDS)
    return {TopicPartition(each.topic, each.partition): future.result().offset for each, future in told.items()}


def _lag(client: Any, bootstrap: str, group: str, topics: Sequence[str]) -> list[PartitionLag]:
    partitions = partitions_of(client, topics)
    committed = committed_offsets(bootstrap, group, partitions)
    low = bounds(client, partitions, latest=False)
    # The end is asked last: what arrives meanwhile then counts as lag, never as a negative one.
    high = bounds(client, partitions, latest=True)
    return [PartitionLag(at.topic, at.partition, committed.get(at), low[at], high[at]) for at in partitions]


def _read_timestamps(
    bootstrap: str, offsets: Mapping[TopicPartition, int], timeout: float
) -> dict[TopicPartition, int | None]:
    """Read one record per partition with a consumer that belongs to no group."""
    settings = client_settings.common(bootstrap, "barnabas-lag") | {
        # The library wants a name; nothing is ever joined or committed under it.
        "group.id": "barnabas.lag-reader",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        # One record is wanted, and the broker sends at least one whole batch in any case.
        "queued.min.messages": 1,
        "fetch.message.max.bytes": 1_024,
        "fetch.wait.max.ms": 50,
        # One record is a full prefetch here, and by default fetching then rests a second: ten partitions took ten.
        "fetch.queue.backoff.ms": 5,
    }
    found: dict[TopicPartition, int | None] = {}
    client: Any = Consumer(settings)
    try:
        client.assign([_ClientPartition(at.topic, at.partition, offset) for at, offset in offsets.items()])
        deadline = time.monotonic() + timeout
        while len(found) < len(offsets):
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(f"{len(offsets) - len(found)} partitions gave no record in {timeout} s")
            for message in client.consume(len(offsets), 0.05):
                if message.error() is not None:
                    continue
                at = TopicPartition(message.topic(), message.partition())
                if at not in found:
                    found[at] = message.timestamp()[1]
                    client.pause([_ClientPartition(at.topic, at.partition)])
    finally:
        client.close()
    return found
