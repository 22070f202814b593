"""Records read and not yet claimed: in fair order, each once, with its offset open until it has a verdict."""

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

import msgspec

from barnabas.contract.records import Record
from barnabas.domain.fairness import LookAhead
from barnabas.domain.jobs import Priority
from barnabas.domain.offsets import OffsetTracker
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.postgres.turns import WokenJob

# What an entry takes in memory, with its objects; the envelope itself is a small part of it.
_ENTRY_BYTES = 400
# Making room in portions: one record at a time would be one transaction each.
_SHED_PART = 16
# Looked up: making an enum's member from its number costs ten times as much.
_PRIORITIES = tuple(Priority)


class Reading(msgspec.Struct, frozen=True, eq=False):
    """One assignment of a partition. Its records share it, so that none looks its partition up again."""

    at: TopicPartition
    epoch: int
    offsets: OffsetTracker


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """A job that a record asks for."""

    tenant_id: UUID
    job_id: UUID
    priority: int
    queue_id: int
    reading: Reading | None = None
    """None for a job that no record brought: one that was called from where it waited in Postgres."""
    offset: int = -1


class Records:
    """The look-ahead and the offsets of what is in it."""

    def __init__(self, *, bytes_max: int) -> None:
        self._ahead: LookAhead[Wanted] = LookAhead(bytes_max=bytes_max)
        self._jobs: set[UUID] = set()
        self._readings: dict[tuple[str, int], Reading] = {}
        self._moved: set[TopicPartition] = set()
        self._returned: list[Wanted] = []
        self._bytes_max = bytes_max
        self._woken = 0

    def __len__(self) -> int:
        return len(self._ahead) + len(self._returned)

    def note(self, consumed: Iterable[ConsumedRecord]) -> None:
        """Records were read: their offsets are open from now on."""
        for one in consumed:
            reading = self._readings.get((one.topic, one.partition))
            if reading is None or reading.epoch != one.epoch:
                reading = self._readings[one.at] = Reading(one.at, one.epoch, OffsetTracker())
            reading.offsets.add(one.offset)

    def push(self, consumed: ConsumedRecord, record: Record) -> bool:
        """Take a record in; false when there is no room. A job that waits here already needs no second record."""
        if record.ref_id in self._jobs:
            self.skip(consumed)
            return True
        reading = self._readings[consumed.topic, consumed.partition]
        wanted = Wanted(record.tenant_id, record.ref_id, record.priority, record.queue_id, reading, consumed.offset)
        if not self._ahead.push(
            wanted, tenant=record.tenant_id, priority=_PRIORITIES[record.priority], size=_ENTRY_BYTES
        ):
            return False
        self._jobs.add(record.ref_id)
        return True

    def push_woken(self, woken: Iterable[WokenJob]) -> None:
        """Take in jobs that were called from where they waited; there are never more than their gates have room for."""
        for job in woken:
            if job.job_id in self._jobs:
                continue
            wanted = Wanted(job.tenant_id, job.job_id, job.priority, job.queue_id)
            self._ahead.push(
                wanted, tenant=wanted.tenant_id, priority=_PRIORITIES[wanted.priority], size=_ENTRY_BYTES, anyway=True
            )
            self._jobs.add(wanted.job_id)
            self._woken += 1

    @property
    def woken(self) -> int:
        """How many of those that wait here were called from where they waited in Postgres."""
        return self._woken

    def take_woken(self) -> list[Wanted]:
        """Give up those that were called; for a worker that claims no more."""
        given = self._ahead.remove(lambda wanted: wanted.reading is None)
        given += [one for one in self._returned if one.reading is None]
        self._returned = [one for one in self._returned if one.reading is not None]
        self._jobs.difference_update(wanted.job_id for wanted in given)
        self._woken = 0
        return given

    def shed(self, records_at_hand: int) -> list[Wanted]:
        """Give up records of tenants above their share, newest first, so that those at hand find room; see `LookAhead`.

        Empty when nobody takes too much. Whoever gets them gives each its durable verdict, and `settle`s them.
        """
        wanted_bytes = max(self._bytes_max // _SHED_PART, records_at_hand * _ENTRY_BYTES)
        # Unseen behind the full look-ahead there may always be one more tenant.
        given = self._ahead.shed(wanted_bytes, newcomers=1)
        self._jobs.difference_update(one.job_id for one in given)
        self._woken -= sum(one.reading is None for one in given)
        return given

    def set_sharing(self, *, weights: Mapping[UUID, int], shares: Mapping[Priority, int]) -> None:
        """From now on these tenants weigh more than 1, and the priorities have these parts of the slots."""
        self._ahead.set_weights(weights)
        self._ahead.set_shares(shares)

    def skip(self, consumed: ConsumedRecord) -> None:
        """A record that names no job, or one that waits here already, has its verdict."""
        reading = self._readings.get(consumed.at)
        if reading is not None and reading.epoch == consumed.epoch:
            reading.offsets.resolve(consumed.offset)
            self._moved.add(reading.at)

    def take(self, count: int) -> list[Wanted]:
        """The fairest next records, after those whose claim has to be tried again."""
        taken, self._returned = self._returned[:count], self._returned[count:]
        if len(taken) < count:
            taken += self._ahead.take(count - len(taken))
        return self._taken(taken)

    def take_for(self, count: int, allowed: Callable[[UUID], bool]) -> list[Wanted]:
        """The fairest next records of tenants for whom `allowed` holds, asked before each."""
        return self._taken(self._ahead.take_for(count, allowed))

    def has_for(self, allowed: Callable[[UUID], bool]) -> bool:
        """Whether there is one."""
        return self._ahead.has_for(allowed)

    def _taken(self, taken: list[Wanted]) -> list[Wanted]:
        self._jobs.difference_update(wanted.job_id for wanted in taken)
        if self._woken:
            self._woken -= sum(wanted.reading is None for wanted in taken)
        return taken

    def put_back(self, wanted: Iterable[Wanted]) -> None:
        """The claim did not happen: these are next again. Room isn't asked for: they had theirs."""
        again = [one for one in wanted if self._current(one)]
        self._returned += again
        self._woken += sum(one.reading is None for one in again)
        self._jobs.update(one.job_id for one in again)

    def settle(self, wanted: Iterable[Wanted]) -> None:
        """These have a durable verdict."""
        for one in wanted:
            if one.reading is not None:
                # Of an assignment that is over nothing is committed: `take_commits` no longer knows it.
                one.reading.offsets.resolve(one.offset)
                self._moved.add(one.reading.at)

    def take_commits(self, only: Iterable[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """Offsets that moved since the last call; those of other partitions than `only` stay for the next."""
        moved = self._moved if only is None else self._moved.intersection(only)
        self._moved = self._moved - moved
        commits = {}
        for at in moved:
            reading = self._readings.get(at)
            offset = None if reading is None else reading.offsets.committable()
            if offset is not None:
                commits[at] = offset
        return commits

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Partitions went away: what was read of them and isn't claimed belongs to somebody else."""
        gone = set(partitions)
        for at in gone:
            self._readings.pop(at, None)
        removed = self._ahead.remove(lambda wanted: not self._current(wanted))
        removed += [one for one in self._returned if not self._current(one)]
        self._returned = [one for one in self._returned if self._current(one)]
        self._jobs.difference_update(wanted.job_id for wanted in removed)

    def clear(self) -> None:
        """Drop everything: the worker takes no more."""
        self.forget([reading.at for reading in self._readings.values()])

    def _current(self, wanted: Wanted) -> bool:
        return wanted.reading is None or self._readings.get(wanted.reading.at) is wanted.reading
