"""Which records Kafka has lost, judged from outside: never by age alone, or a backlog would be sent again for ever.

Something is lost when it became ready well before the oldest record that is still unread in its partition: its own
record would have been read by now, and would have moved it. Pure: times are Unix seconds by the database's clock.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from confluent_kafka import murmur2

from barnabas.domain.recovery import LOST_MARGIN_SECONDS, resend_interval
from barnabas.kafka.lag import PartitionLag
from barnabas.kafka.partitions import TopicPartition

K = TypeVar("K")

# Some 300 bytes each. Nothing more is sent again until some of these have been taken, so it bounds the flood too.
_REMEMBERED_MAX = 100_000
_LATE_MAX = 200


class Horizons:
    """Up to when each partition has been read: what became ready before that has been read, or is lost."""

    def __init__(
        self, lags: Sequence[PartitionLag], oldest_unread_ms: Mapping[TopicPartition, int | None], *, measured_at: float
    ) -> None:
        self._at: dict[TopicPartition, float] = {}
        self._partitions: dict[str, int] = {}
        for lag in lags:
            oldest_ms = oldest_unread_ms[lag.at]
            # A producer's clock may be ahead; nothing unread is younger than the measurement.
            self._at[lag.at] = measured_at if oldest_ms is None else min(measured_at, oldest_ms / 1_000)
            self._partitions[lag.topic] = self._partitions.get(lag.topic, 0) + 1

    def of(self, topic: str, key: bytes) -> float:
        """The horizon of the partition that this key's records are in; minus infinity when the topic isn't there."""
        partitions = self._partitions.get(topic)
        if not partitions:
            return float("-inf")
        return self._at.get(TopicPartition(topic, murmur2(key, partitions)), float("-inf"))

    @property
    def latest(self) -> float:
        """The latest of them all: what became ready after it is certainly not lost."""
        return max(self._at.values(), default=float("-inf"))


class Resent(Generic[K]):
    """What was sent again and when, so that it is given time to be taken: twice as much each time."""

    def __init__(self, *, size_max: int = _REMEMBERED_MAX) -> None:
        self._size_max = size_max
        self._sent: dict[K, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def last(self, key: K) -> float:
        """When it was last sent again; minus infinity if never."""
        sent = self._sent.get(key)
        return float("-inf") if sent is None else sent[0]

    def may(self, key: K, now: float, *, more: int = 0) -> bool:
        """Whether its time is up, and whether there is room to remember it beside `more` others just chosen."""
        sent = self._sent.get(key)
        if sent is None:
            return len(self._sent) + more < self._size_max
        return now >= sent[0] + resend_interval(sent[1])

    @property
    def next_at(self) -> float:
        """When the first of them may be sent once more; infinity when there is none."""
        return min((at + resend_interval(times) for at, times in self._sent.values()), default=float("inf"))

    def note(self, key: K, now: float) -> None:
        """It is sent again now."""
        sent = self._sent.get(key)
        self._sent[key] = (now, 0 if sent is None else sent[1] + 1)

    def keep_only(self, keys: set[K]) -> None:
        """Forget all others: they were taken, or have ended."""
        self._sent = {key: sent for key, sent in self._sent.items() if key in keys}


class _Wipe(NamedTuple):
    at: float
    """When it was noticed."""
    whole_at: float
    """When the topic was last seen before the first of its wipes."""


_NEVER = _Wipe(at=float("-inf"), whole_at=float("inf"))


class LostRecords:
    """What one leader knows about records that came late into Kafka, or went with a topic."""

    def __init__(self, *, on_wiped: Callable[[], object] = lambda: None) -> None:
        """`on_wiped` is called whenever there is a wipe to be made good."""
        self._on_wiped = on_wiped
        self._late: deque[tuple[float, float, float]] = deque(maxlen=_LATE_MAX)
        self._wiped: dict[str, _Wipe] = {}

    def told_late(self, *, from_at: float, until_at: float, told_at: float) -> None:
        """What became ready in that time reached Kafka only now: the outbox had to wait."""
        if told_at - from_at < LOST_MARGIN_SECONDS / 2:
            return
        if self._late and self._late[-1][2] > told_at - 1.0:
            # A relay that works off an hour's outbox is one interval a second, not one for each batch.
            start, end, _ = self._late.pop()
            from_at, until_at = min(start, from_at), max(end, until_at)
        self._late.append((from_at, until_at, told_at))

    def in_kafka_since(self, ready_at: float) -> float:
        """When the record of what became ready then was written, at the latest that is known."""
        return max([ready_at, *(told_at for start, end, told_at in self._late if start <= ready_at <= end)])

    def topic_wiped(self, topic: str, at: float, *, whole_at: float | None = None) -> None:
        """The topic is another, empty one: what it held before `at` is gone, read or not.

        `whole_at` is when the one before was last seen, where that is known.
        """
        earlier = self._wiped.get(topic)
        if earlier is not None:
            whole_at = earlier.whole_at
        self._wiped[topic] = _Wipe(at, at if whole_at is None else whole_at)
        self._on_wiped()

    def made_good(self, topics: set[str], *, before: float) -> set[str]:
        """Forget wipes noticed before then; returns the topics that this was true of."""
        done = {topic for topic in topics & self.wiped if self._wiped[topic].at < before}
        for topic in done:
            del self._wiped[topic]
        return done

    def wiped_at(self, topic: str) -> float:
        """When the topic's loss was noticed; minus infinity while nothing is to be made good."""
        return self._wiped.get(topic, _NEVER).at

    def whole_at(self, topic: str) -> float:
        """When the topic that was wiped was last seen, as far as is known; infinity when none was."""
        return self._wiped.get(topic, _NEVER).whole_at

    @property
    def wiped(self) -> frozenset[str]:
        """Topics whose loss is not made good yet."""
        return frozenset(self._wiped)

    def is_lost(self, topic: str, *, in_kafka_since: float, horizon: float) -> bool:
        """Whether a record written then, to a partition that has been read up to the horizon, is gone."""
        return in_kafka_since < horizon - LOST_MARGIN_SECONDS or in_kafka_since < self.wiped_at(topic)
