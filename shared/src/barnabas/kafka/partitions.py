"""The values that a consumer hands out: a partition's name and a record read from it."""

from collections.abc import Iterable
from operator import methodcaller
from typing import Any, NamedTuple

import msgspec
import structlog

log = structlog.get_logger(__name__)

# What a header takes in memory beside its name's and value's bytes; in Kafka it may have 3.
_HEADER_BYTES = 150

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


def size_of(records: Iterable[ConsumedRecord]) -> int:
    """Bytes of keys, values and headers: what bounds on memory count."""
    # One expression for all of them: a call for each record would take longer than the rest.
    return sum(
        [
            len(record.key or b"")
            + len(record.value or b"")
            + (
                sum([_HEADER_BYTES + len(name) + len(value or b"") for name, value in record.headers])
                if record.headers
                else 0
            )
            for record in records
        ]
    )


# The library returns something and leaves its exception set. A plain call, once the interpreter has specialised it,
# looks only at what is returned, and the exception comes up wherever it is noticed next.
_read_headers = methodcaller("headers")


def headers_of(message: Any) -> Headers:
    """A message's headers; none when the library can't make text of a name, which any client may have written."""
    try:
        return tuple(_read_headers(message) or ())
    except (SystemError, UnicodeDecodeError):
        log.warning("headers_unreadable", topic=message.topic(), partition=message.partition(), offset=message.offset())
        return ()


def shown(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Partitions by topic, for a line of the log."""
    by_topic: dict[str, list[int]] = {}
    for at in sorted(partitions):
        by_topic.setdefault(at.topic, []).append(at.partition)
    return by_topic
