"""The consumer as a step sees it: batches of records out, offsets and pauses in.

One thread owns the library's consumer (`consumer_thread`); this side lives on the event loop. What was read waits in a
bounded inbox. Each assignment of a partition has an epoch: after a rebalance, a seek or a rebuilt client, records of an
older epoch are dropped here, and `is_current` lets a step drop those it already holds.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType

import structlog

from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer_thread import ConsumerThread
from barnabas.kafka.loop_side import Taken
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition, size_of
from barnabas.runtime import metrics
from barnabas.runtime.within import set_within

log = structlog.get_logger(__name__)

StartOffsets = Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]
OnAssigned = Callable[[Sequence[TopicPartition]], None]
OnRevoked = Callable[[Sequence[TopicPartition], bool], Awaitable[Mapping[TopicPartition, int] | None]]

_CLOSE_LIMIT_SECONDS = 15.0
_DEFAULT_OPTIONS = ConsumerOptions()


class Consumer:
    """A member of a consumer group. Made, used and closed on one event loop.

    `start_offsets` is asked at each assignment and its answer is where reading begins (a partition that it leaves out
    begins at the group's committed offset); no record is delivered before. It is committed, too: somebody else has the
    say, and the group follows. If it fails, the assignment is tried again.
    `on_assigned(partitions)` runs before the first record of these partitions arrives. `on_revoked(partitions, lost)`
    may wait for work in flight, up to `options.revoke_limit_seconds`, and returns offsets that are committed before the
    partitions move; when `lost`, they have moved already and nothing is committed.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        group: str,
        topics: Sequence[str],
        client_id: str = "barnabas",
        options: ConsumerOptions = _DEFAULT_OPTIONS,
        start_offsets: StartOffsets | None = None,
        on_assigned: OnAssigned | None = None,
        on_revoked: OnRevoked | None = None,
    ) -> None:
        self.group = group
        self._loop = asyncio.get_running_loop()
        self._start_offsets = start_offsets
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._inbox: deque[ConsumedRecord] = deque()
        self._arrived = asyncio.Event()
        self._epochs: dict[TopicPartition, int] = {}
        self._epoch_numbers = itertools.count(1)
        self._taken = Taken()
        self._failure: BaseException | None = None
        self._closed = False
        self._inbox_records = metrics.consumer_inbox_records.labels(group)
        self._inbox_bytes = metrics.consumer_inbox_bytes.labels(group)
        self._thread = ConsumerThread(
            bootstrap,
            group=group,
            topics=topics,
            client_id=client_id,
            options=options,
            side=self,
            loop=self._loop,
            taken=self._taken,
            asks_start_offsets=start_offsets is not None,
        )

    async def __aenter__(self) -> "Consumer":
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the group at once, after committing what was asked for; records in the inbox are dropped."""
        if self._closed:
            return
        self._closed = True
        self._arrived.set()
        if not await self._thread.stop(_CLOSE_LIMIT_SECONDS):
            log.error("consumer_close_overdue", group=self.group)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member holds now."""
        return frozenset(self._epochs)

    @property
    def queued(self) -> int:
        """Records in the inbox."""
        return len(self._inbox)

    def is_current(self, record: ConsumedRecord) -> bool:
        """Whether the assignment under which the record was read still holds; if not, drop it."""
        # A plain tuple equals the named one and is made in a third of the time.
        return self._epochs.get((record.topic, record.partition)) == record.epoch  # type: ignore[call-overload, no-any-return]

    async def get(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Up to `max_records` as soon as there is one; empty after `timeout` seconds, and sometimes before.

        Raises what ended the consumer's thread, if anything did: that is a mistake of ours, never Kafka's state.
        """
        if not self._inbox and not self._closed:
            self._arrived.clear()
            if not await set_within(self._arrived, timeout):
                return []
        if self._failure is not None:
            raise self._failure
        inbox = self._inbox
        records = [inbox.popleft() for _ in range(min(max_records, len(inbox)))]
        self._count_taken(records)
        return [record for record in records if self.is_current(record)]

    def wake(self) -> None:
        """Have a `get` that waits return now, with nothing if there is nothing."""
        self._arrived.set()

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Have offsets (the next to be read) committed; returns at once.

        Later calls win over earlier ones; offsets of partitions that this member doesn't hold are dropped.
        """
        held = {at: (self._epochs[at], offset) for at, offset in offsets.items() if at in self._epochs}
        if held:
            self._thread.commit(held)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these partitions; what is in the inbox stays there. A new assignment forgets the pause."""
        self._thread.pause(list(partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions again."""
        self._thread.resume(list(partitions))

    def seek(self, at: TopicPartition, offset: int) -> None:
        """Read on from `offset`; records of this partition that were read before are no longer current."""
        before = self._epochs.get(at)
        if before is None:
            return
        after = self._epochs[at] = next(self._epoch_numbers)
        self._drop_stale()
        self._thread.seek(at, offset, before=before, after=after)

    # What follows is called by the thread, on the loop and in the order in which things happened.

    def next_epoch(self) -> int:
        """A number that no assignment has had; safe to call from any thread."""
        return next(self._epoch_numbers)

    def deliver(self, records: Sequence[ConsumedRecord]) -> None:
        """Records were read."""
        self._inbox.extend(records)
        self._show_inbox()
        self._arrived.set()

    async def begin_assignment(self, epochs: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Partitions arrive; returns where to start reading them."""
        starts: Mapping[TopicPartition, int] = {}
        if self._start_offsets is not None:
            starts = await self._start_offsets(sorted(epochs))
        self.assigned(epochs)
        # The group may be behind: what was read and not committed before the partitions were lost isn't read again, and
        # would count as lag until the next record.
        self.commit(starts)
        return starts

    def assigned(self, epochs: Mapping[TopicPartition, int]) -> None:
        """Partitions have arrived."""
        self._epochs.update(epochs)
        if self._on_assigned is not None:
            self._on_assigned(sorted(epochs))

    async def end_assignment(
        self, partitions: Sequence[TopicPartition], *, lost: bool
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """Partitions go; returns their epochs and the offsets to commit before."""
        held = [at for at in partitions if at in self._epochs]
        epochs = {at: self._epochs[at] for at in held}
        self.unassigned(held)
        if not held or self._on_revoked is None:
            return {}
        offsets = await self._on_revoked(held, lost) or {}
        return {at: (epochs[at], offset) for at, offset in offsets.items() if at in epochs and not lost}

    def unassigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Partitions have gone."""
        for at in partitions:
            self._epochs.pop(at, None)
        self._drop_stale()

    def fail(self, error: BaseException) -> None:
        """The thread ended by a mistake of ours."""
        self._failure = RuntimeError("the consumer's thread ended")
        self._failure.__cause__ = error
        self._arrived.set()

    def _drop_stale(self) -> None:
        kept = [record for record in self._inbox if self.is_current(record)]
        if len(kept) < len(self._inbox):
            stale = [record for record in self._inbox if not self.is_current(record)]
            self._inbox = deque(kept)
            self._count_taken(stale)

    def _count_taken(self, records: Sequence[ConsumedRecord]) -> None:
        self._taken.records += len(records)
        self._taken.bytes += size_of(records)
        self._show_inbox()

    def _show_inbox(self) -> None:
        self._inbox_records.set(len(self._inbox))
        self._inbox_bytes.set(self._thread.delivered_bytes - self._taken.bytes)
