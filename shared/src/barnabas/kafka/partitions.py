"""The values that a consumer hands out: a partition's name and a record read from it."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

Headers = tuple[tuple[str, bytes | None], ...]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class ConsumedRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as it was read. A msgspec struct, because a dataclass costs five times as much to make.

    `epoch` names the assignment under which it was read: the consumer's `is_current` tells whether that still holds.
    `timestamp_ms` is Unix milliseconds: the broker's append time on delay tiers, the producer's time elsewhere.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    epoch: int

    @property
    def at(self) -> TopicPartition:
        """The partition that it came from."""
        return TopicPartition(self.topic, self.partition)

    @property
    def size_bytes(self) -> int:
        """Bytes of key and value: what bounds on memory count."""
        return len(self.key or b"") + len(self.value or b"")


def shown(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Partitions by topic, for a line of the log."""
    by_topic: dict[str, list[int]] = {}
    for at in sorted(partitions):
        by_topic.setdefault(at.topic, []).append(at.partition)
    return by_topic
