"""Delayed records in memory: a short queue for each partition, and one heap for the last second.

A tier holds one fixed delay and its records say when they were sent, so the head of a partition is the first to leave
and only heads are looked at. What is held is bounded: a partition with a full queue is paused, and the rest of its
records wait in Kafka, a million as well as a thousand. Nothing here reads a clock or talks to Kafka.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Iterable

import msgspec

from barnabas.domain.tiers import HEAP_SECONDS, next_tier
from barnabas.kafka.partitions import TopicPartition

# Some 300 bytes each. A partition of a tier can pass on about this many each time that it is read anew, which takes
# milliseconds; all 168 partitions full are 50 MB.
QUEUE_FULL = 1_000
QUEUE_LOW = 500
# What one partition may pass on before the others have had their turn: one tenant's flood is one partition's.
QUEUE_SHARE = 250
# For the last second only, so this is a rate: records a second that end their delay between two tiers.
HEAP_FULL = 20_000


class Resting(msgspec.Struct, frozen=True, gc=False):
    """A record that waits. Times are Unix seconds by the database's clock.

    `leaves_at` is when it leaves its tier, `due_at` when its job may run; `destination` is the topic of its last hop. A
    msgspec struct that the garbage collector doesn't walk: there may be a hundred thousand.
    """

    leaves_at: float
    due_at: float
    destination: str
    at: TopicPartition
    offset: int
    epoch: int
    key: bytes | None
    value: bytes


class Departure(msgspec.Struct, frozen=True, gc=False):
    """A record that goes on, and the topic it goes to."""

    topic: str
    record: Resting


class DelayLine:
    """What one process holds."""

    def __init__(self, *, queue_full: int = QUEUE_FULL, queue_low: int = QUEUE_LOW, heap_full: int = HEAP_FULL) -> None:
        self._queue_full = queue_full
        self._queue_low = queue_low
        self._heap_full = heap_full
        self._queues: dict[TopicPartition, deque[Resting]] = {}
        self._heap: list[tuple[float, int, Resting]] = []
        self._order = itertools.count()
        self._paused: set[TopicPartition] = set()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._heap) + sum(map(len, self._queues.values()))

    def add(self, records: Iterable[Resting]) -> None:
        """Take records in, each behind those of its partition."""
        for record in records:
            queue = self._queues.get(record.at)
            if queue is None:
                queue = self._queues[record.at] = deque()
            queue.append(record)

    def depart(self, now: float, tiers: dict[float, str], *, limit: int) -> list[Departure]:
        """Take out what goes on now, at most `limit`: to the next of `tiers` (topics by delay), or on its last hop."""
        leaving: list[Departure] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(leaving) < limit:
            record = heapq.heappop(heap)[2]
            leaving.append(Departure(record.destination, record))
        delays = tuple(tiers)
        queues = list(self._queues.values())
        for turn in range(len(queues)):
            if len(leaving) >= limit:
                # Whoever had no turn now is first next time.
                self._turn += turn
                break
            queue = queues[(self._turn + turn) % len(queues)]
            for _ in range(min(QUEUE_SHARE, len(queue))):
                if queue[0].leaves_at > now or len(leaving) >= limit:
                    break
                rest = queue[0].due_at - now
                tier = next_tier(rest, delays)
                if rest <= 0.0:
                    leaving.append(Departure(queue[0].destination, queue.popleft()))
                elif tier is not None:
                    leaving.append(Departure(tiers[tier], queue.popleft()))
                elif len(heap) < self._heap_full:
                    heapq.heappush(heap, (queue[0].due_at, next(self._order), queue.popleft()))
                else:
                    # The heap empties within a second; this partition waits for that.
                    break
        return leaving

    def next_at(self, now: float) -> float:
        """When something will want to go on, at most a second from now."""
        at = now + HEAP_SECONDS
        if self._heap:
            at = min(at, self._heap[0][0])
        full = len(self._heap) >= self._heap_full
        for queue in self._queues.values():
            if queue and queue[0].leaves_at < at:
                # Behind a full heap nothing moves before the heap does.
                if full and 0.0 < queue[0].due_at - now < HEAP_SECONDS:
                    continue
                at = queue[0].leaves_at
        return at

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what was held of partitions that are gone."""
        for at in partitions:
            self._queues.pop(at, None)
            self._paused.discard(at)
        kept = [entry for entry in self._heap if entry[2].at not in partitions]
        if len(kept) < len(self._heap):
            heapq.heapify(kept)
            self._heap = kept

    def to_pause(self) -> list[TopicPartition]:
        """Partitions whose queue has become full; each is named once."""
        full = [at for at, queue in self._queues.items() if len(queue) >= self._queue_full and at not in self._paused]
        self._paused.update(full)
        return full

    def to_resume(self) -> list[TopicPartition]:
        """Paused partitions whose queue has room again; each is named once."""
        low = [at for at in self._paused if len(self._queues.get(at, ())) < self._queue_low]
        self._paused.difference_update(low)
        return low
