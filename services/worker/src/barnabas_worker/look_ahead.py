"""Records read and not yet claimed: in fair order, each once, with its offset open until it has a verdict."""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from barnabas.contract.records import Record
from barnabas.domain.fairness import LookAhead
from barnabas.domain.jobs import Priority
from barnabas.domain.offsets import OffsetTracker
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition

# What an entry takes in memory, with its objects; the envelope itself is a small part of it.
_ENTRY_BYTES = 400
# Looked up: making an enum's member from its number costs ten times as much.
_PRIORITIES = tuple(Priority)


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """A job that a record asks for."""

    tenant_id: UUID
    job_id: UUID
    priority: int
    at: TopicPartition
    offset: int
    epoch: int


class Records:
    """The look-ahead and the offsets of what is in it."""

    def __init__(self, *, bytes_max: int) -> None:
        self._ahead: LookAhead[Wanted] = LookAhead(bytes_max=bytes_max)
        self._jobs: set[UUID] = set()
        self._trackers: dict[TopicPartition, tuple[int, OffsetTracker]] = {}
        self._moved: set[TopicPartition] = set()
        self._returned: list[Wanted] = []

    def __len__(self) -> int:
        return len(self._ahead) + len(self._returned)

    def note(self, consumed: Iterable[ConsumedRecord]) -> None:
        """Records were read: their offsets are open from now on."""
        for one in consumed:
            at = one.at
            held = self._trackers.get(at)
            if held is None or held[0] != one.epoch:
                held = self._trackers[at] = (one.epoch, OffsetTracker())
            held[1].add(one.offset)

    def push(self, consumed: ConsumedRecord, record: Record) -> bool:
        """Take a record in; false when there is no room. A job that waits here already needs no second record."""
        if record.ref_id in self._jobs:
            self._settle(consumed.at, consumed.epoch, consumed.offset)
            return True
        wanted = Wanted(record.tenant_id, record.ref_id, record.priority, consumed.at, consumed.offset, consumed.epoch)
        if not self._ahead.push(
            wanted, tenant=wanted.tenant_id, priority=_PRIORITIES[wanted.priority], size=_ENTRY_BYTES
        ):
            return False
        self._jobs.add(wanted.job_id)
        return True

    def skip(self, consumed: ConsumedRecord) -> None:
        """A record that nobody can read has its verdict: poison."""
        self._settle(consumed.at, consumed.epoch, consumed.offset)

    def take(self, count: int) -> list[Wanted]:
        """The fairest next records, after those whose claim has to be tried again."""
        taken, self._returned = self._returned[:count], self._returned[count:]
        if len(taken) < count:
            taken += self._ahead.take(count - len(taken))
        self._jobs.difference_update(wanted.job_id for wanted in taken)
        return taken

    def put_back(self, wanted: Iterable[Wanted]) -> None:
        """The claim did not happen: these are next again. Room isn't asked for: they had theirs."""
        again = [one for one in wanted if self._current(one)]
        self._returned += again
        self._jobs.update(one.job_id for one in again)

    def settle(self, wanted: Iterable[Wanted]) -> None:
        """These have a durable verdict."""
        for one in wanted:
            self._settle(one.at, one.epoch, one.offset)

    def take_commits(self) -> dict[TopicPartition, int]:
        """Offsets that moved since the last call."""
        commits = {}
        for at in self._moved:
            held = self._trackers.get(at)
            offset = None if held is None else held[1].committable()
            if offset is not None:
                commits[at] = offset
        self._moved.clear()
        return commits

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Partitions went away: what was read of them and isn't claimed belongs to somebody else."""
        gone = set(partitions)
        for at in gone:
            self._trackers.pop(at, None)
        removed = self._ahead.remove(lambda wanted: wanted.at in gone)
        removed += [one for one in self._returned if one.at in gone]
        self._returned = [one for one in self._returned if one.at not in gone]
        self._jobs.difference_update(wanted.job_id for wanted in removed)

    def clear(self) -> None:
        """Drop everything: the worker takes no more."""
        self.forget(list(self._trackers))

    def _current(self, wanted: Wanted) -> bool:
        held = self._trackers.get(wanted.at)
        return held is not None and held[0] == wanted.epoch

    def _settle(self, at: TopicPartition, epoch: int, offset: int) -> None:
        held = self._trackers.get(at)
        if held is not None and held[0] == epoch:
            held[1].resolve(offset)
            self._moved.add(at)
