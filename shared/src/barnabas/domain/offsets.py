"""Which offset may be committed while records are handled out of order.

A consumer adds what it took and resolves each record once it has a durable verdict; the offset to commit is the lowest
without one. Offsets may have gaps (compaction, transactions). What was taken in an earlier assignment of a partition
never moves a later one's offset.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from barnabas.errors import TransientError

# Only offsets without a verdict are held, some 100 bytes each: 26 MB in the worst case.
OPEN_MAX: Final = 262_144

Partition = tuple[str, int]


class TooManyOpenOffsetsError(TransientError):
    """Too many records of one partition are without a verdict: pause it."""

    code = "too_many_open_offsets"


class OffsetTracker:
    """The watermark of one partition in one assignment. Memory grows with open offsets only, never with resolved
    ones."""

    __slots__ = ("_first", "_last", "_open", "_open_max")

    def __init__(self, *, open_max: int = OPEN_MAX) -> None:
        self._open_max = open_max
        # In the order they were added, which is the order of offsets: its first key is the lowest open one.
        self._open: OrderedDict[int, None] = OrderedDict()
        self._first: int | None = None
        self._last = -1

    def add(self, offset: int) -> bool:
        """Note a record that was taken; False when it was seen before. Raises `TooManyOpenOffsetsError` when full."""
        if offset <= self._last:
            return False
        if len(self._open) >= self._open_max:
            raise TooManyOpenOffsetsError
        if self._first is None:
            self._first = offset
        self._open[offset] = None
        self._last = offset
        return True

    def add_many(self, offsets: range) -> None:
        """Note a batch of ascending offsets; what was seen before is skipped. All or nothing when full."""
        assert offsets.step > 0, "records come in the order of their offsets"
        # From the first new one on, in the batch's own step.
        fresh = offsets[max(0, -((offsets.start - self._last - 1) // offsets.step)) :]
        if not fresh:
            return
        if len(self._open) + len(fresh) > self._open_max:
            raise TooManyOpenOffsetsError
        if self._first is None:
            self._first = fresh[0]
        self._open.update(dict.fromkeys(fresh))
        self._last = fresh[-1]

    def resolve(self, offset: int) -> None:
        """The record has its verdict. Doing it twice, or for one never added, changes nothing."""
        self._open.pop(offset, None)

    def resolve_many(self, offsets: Iterable[int]) -> None:
        """Resolve a batch, in any order."""
        held = self._open
        for offset in offsets:
            held.pop(offset, None)

    def committable(self) -> int | None:
        """The next offset to commit: the lowest open one, or the one after the last; None while nothing moved."""
        low = next(iter(self._open)) if self._open else self._last + 1
        return None if self._first is None or low == self._first else low

    @property
    def room(self) -> int:
        """How many more may be added."""
        return self._open_max - len(self._open)

    def __len__(self) -> int:
        return len(self._open)


class Offsets:
    """The trackers of all partitions that this consumer holds, each under the epoch of its assignment.

    An epoch is a number that grows with each assignment. A verdict under an older epoch is dropped: the partition's
    records were given to someone else, or come again.
    """

    __slots__ = ("_committed", "_epoch", "_open_max", "_trackers")

    def __init__(self, *, open_max: int = OPEN_MAX) -> None:
        self._open_max = open_max
        self._epoch = 0
        self._trackers: dict[Partition, tuple[int, OffsetTracker]] = {}
        self._committed: dict[Partition, int] = {}

    def assign(self, topic: str, partition: int) -> int:
        """Begin anew with a partition; the epoch to name in every later call."""
        self._epoch += 1
        self._trackers[topic, partition] = (self._epoch, OffsetTracker(open_max=self._open_max))
        self._committed.pop((topic, partition), None)
        return self._epoch

    def revoke(self, topic: str, partition: int) -> None:
        """Forget a partition and what of it is still open."""
        self._trackers.pop((topic, partition), None)
        self._committed.pop((topic, partition), None)

    def epoch(self, topic: str, partition: int) -> int | None:
        """The epoch of the partition's present assignment, None when it isn't held."""
        held = self._trackers.get((topic, partition))
        return None if held is None else held[0]

    def add(self, topic: str, partition: int, *, epoch: int, offset: int) -> bool:
        """Note a record; False when the epoch is over or the record was seen before."""
        tracker = self._tracker(topic, partition, epoch)
        return tracker is not None and tracker.add(offset)

    def add_many(self, topic: str, partition: int, *, epoch: int, offsets: range) -> bool:
        """Note a batch; False when the epoch is over."""
        tracker = self._tracker(topic, partition, epoch)
        if tracker is None:
            return False
        tracker.add_many(offsets)
        return True

    def resolve(self, topic: str, partition: int, *, epoch: int, offset: int) -> bool:
        """The record has its verdict; False when the epoch is over, and then nothing moves."""
        return self.resolve_many(topic, partition, epoch=epoch, offsets=(offset,))

    def resolve_many(self, topic: str, partition: int, *, epoch: int, offsets: Iterable[int]) -> bool:
        """Resolve a batch of one partition; False when the epoch is over, and then nothing moves."""
        tracker = self._tracker(topic, partition, epoch)
        if tracker is None:
            return False
        tracker.resolve_many(offsets)
        return True

    def committable(self) -> dict[Partition, int]:
        """Next offsets of the partitions whose watermark moved since `committed` was told."""
        moved = {}
        for partition, (_, tracker) in self._trackers.items():
            offset = tracker.committable()
            if offset is not None and offset != self._committed.get(partition):
                moved[partition] = offset
        return moved

    def committed(self, offsets: dict[Partition, int]) -> None:
        """These are committed, and are offered again only when they move; a failed commit is simply not told."""
        for partition, offset in offsets.items():
            if partition in self._trackers:
                self._committed[partition] = offset

    def room(self, topic: str, partition: int) -> int:
        """How many more records of a partition may be added; 0 when it isn't held."""
        held = self._trackers.get((topic, partition))
        return 0 if held is None else held[1].room

    def __len__(self) -> int:
        return sum(len(tracker) for _, tracker in self._trackers.values())

    def _tracker(self, topic: str, partition: int, epoch: int) -> OffsetTracker | None:
        held = self._trackers.get((topic, partition))
        return held[1] if held is not None and held[0] == epoch else None
