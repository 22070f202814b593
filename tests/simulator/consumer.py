"""A consumer and a producer of the model broker, with the faces of the real ones."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.consumer import OnAssigned, OnRevoked, StartOffsets
from barnabas.kafka.lag import PartitionLag
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.runtime.within import set_within
from tests.simulator.broker import Group, ModelBroker
from tests.simulator.loop import PROCESS, Process

_FETCH_MAX = 20
_DELIVERY_TIMEOUT_SECONDS = 10.0
_ACCEPTING_SECONDS = 1.0


class ModelConsumer:
    """A member of a group; see `barnabas.kafka.consumer.Consumer`."""

    broker: ModelBroker
    random: Random
    commits_at_once = False
    """Whether offsets are committed when records are read: a mistake that can be switched on."""
    _numbers = 0

    def __init__(
        self,
        _bootstrap: object,
        *,
        group: str,
        topics: Sequence[str],
        client_id: str = "",
        options: object = None,
        start_offsets: StartOffsets | None = None,
        on_assigned: OnAssigned | None = None,
        on_revoked: OnRevoked | None = None,
    ) -> None:
        process = PROCESS.get()
        assert process is not None, "a consumer belongs to a process"
        ModelConsumer._numbers += 1
        self.number = ModelConsumer._numbers
        self.process: Process = process
        self.group = group
        self.topics = list(topics)
        self.heard_at = self.broker.loop.now
        self._start_offsets = start_offsets
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._inbox: deque[ConsumedRecord] = deque()
        self._arrived = asyncio.Event()
        self._epochs: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._fetching: set[TopicPartition] = set()
        self._epoch = 0
        self._generation = self.broker.wipes
        self._committed_at = 0.0
        self._to_commit: dict[TopicPartition, int] = {}
        self._closed = False

    async def __aenter__(self) -> "ModelConsumer":
        self.broker.join(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._arrived.set()
            held = list(self._epochs)
            await self._end(held, lost=False)
            self.broker.leave(self)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._epochs)

    @property
    def queued(self) -> int:
        return len(self._inbox)

    def is_current(self, record: ConsumedRecord) -> bool:
        return self._epochs.get(record.at) == record.epoch

    async def get(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        if not self._inbox and not self._closed:
            self._arrived.clear()
            if not await set_within(self._arrived, timeout):
                return []
        records = [self._inbox.popleft() for _ in range(min(max_records, len(self._inbox)))]
        return [record for record in records if self.is_current(record)]

    def wake(self) -> None:
        self._arrived.set()

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        held = {place: offset for place, offset in offsets.items() if place in self._epochs}
        if held:
            self._to_commit |= held
            self._send_commit(held)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._paused.discard(partition)
            self.fetch_soon(partition)

    def seek(self, at: TopicPartition, offset: int) -> None:
        if at in self._epochs:
            self._epochs[at] = self._next_epoch()
            self._positions[at] = offset
            self._inbox = deque(record for record in self._inbox if self.is_current(record))
            self.fetch_soon(at)

    def commit_again(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """A commit failed: it is sent once more, and what is newer by now in its place."""
        newest = {place: self._to_commit[place] for place in offsets if place in self._to_commit}
        if newest:
            self.broker.commit(self, newest, generation)

    # What the broker calls; it happens in this member's process.

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """These are this member's now."""
        self._in_process(self._begin, list(partitions))

    def revoke(self, group: Group, partitions: Sequence[TopicPartition]) -> None:
        """These are to be let go of."""
        self._in_process(self._let_go, group, list(partitions))

    def lose(self) -> None:
        """Everything has gone to others; who lives joins again as soon as it hears of that."""
        self._in_process(self._lost)

    def fetch_soon(self, partition: TopicPartition) -> None:
        """There may be something to read."""
        if partition in self._epochs and partition not in self._fetching and partition not in self._paused:
            self._fetching.add(partition)
            delay = 0.0005 + 0.004 * self.random.random() ** 2
            self._in_process(self._fetch, partition, delay=delay)

    def _in_process(self, call: Any, *args: Any, delay: float = 0.0) -> None:
        loop = self.broker.loop
        loop.outside(lambda: loop.spawn(self._called(call, *args), self.process), delay=delay)

    async def _called(self, call: Any, *args: Any) -> None:
        if not self._closed:
            answer = call(*args)
            if answer is not None:
                await answer

    async def _begin(self, partitions: list[TopicPartition]) -> None:
        starts: Mapping[TopicPartition, int] = {}
        if self._start_offsets is not None:
            try:
                starts = await self._start_offsets(partitions)
            except Exception:  # noqa: BLE001 - as the real one: an assignment that can't begin is tried again
                self.broker.leave(self)
                self.broker.join(self)
                return
        owners = self.broker.group(self.group).owners
        mine = [place for place in partitions if owners.get(place) is self]
        committed = self.broker.group(self.group).committed
        self._generation = self.broker.wipes
        for place in mine:
            self._epochs[place] = self._next_epoch()
            self._positions[place] = starts.get(place, committed.get(place, 0))
            self._paused.discard(place)
        if mine and self._on_assigned is not None:
            self._on_assigned(mine)
        self.commit(starts)
        for place in mine:
            self.fetch_soon(place)

    async def _let_go(self, group: Group, partitions: list[TopicPartition]) -> None:
        await self._end(partitions, lost=False)
        self.broker.released(group, partitions, self)

    async def _lost(self) -> None:
        await self._end(list(self._epochs), lost=True)
        self.heard_at = self.broker.loop.now
        self.broker.join(self)

    async def _end(self, partitions: Sequence[TopicPartition], *, lost: bool) -> None:
        held = [place for place in partitions if self._epochs.pop(place, None) is not None]
        for place in held:
            self._to_commit.pop(place, None)
        self._inbox = deque(record for record in self._inbox if self.is_current(record))
        if held and self._on_revoked is not None:
            offsets = await self._on_revoked(held, lost)
            if offsets and not lost:
                self.broker.commit(self, offsets, self._generation)

    def _fetch(self, partition: TopicPartition) -> None:
        self._fetching.discard(partition)
        epoch = self._epochs.get(partition)
        if epoch is None or partition in self._paused or self.broker.is_away:
            return
        log, start = self.broker.logs[partition], self._positions[partition]
        found = log[start : start + _FETCH_MAX]
        if not found:
            return
        self._positions[partition] = start + len(found)
        for offset, record in enumerate(found, start):
            self._inbox.append(
                ConsumedRecord(*partition, offset, record.key, record.value, record.headers, record.timestamp_ms, epoch)
            )
        if self.commits_at_once:
            self.broker.commit(self, {partition: start + len(found)}, self._generation)
        self._arrived.set()
        if start + len(found) < len(log):
            self.fetch_soon(partition)

    def _send_commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        # On its way it is nobody's: it arrives although its sender dies. One connection keeps the order.
        now = self.broker.loop.now
        self._committed_at = max(self._committed_at, now + 0.001 + 0.01 * self.random.random())
        self.broker.loop.outside(
            self.broker.commit, self, dict(offsets), self._generation, delay=self._committed_at - now
        )

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch


class ModelProducer:
    """See `barnabas.kafka.producer.Producer`: anything but an acknowledgement means unknown."""

    def __init__(self, broker: ModelBroker, random: Random) -> None:
        self._broker = broker
        self._random = random
        self._open: dict[int, float] = {}
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        self._last_at = 0.0

    @property
    def accepting(self) -> bool:
        return self._broker.loop.now - min(self._open.values(), default=self._broker.loop.now) < _ACCEPTING_SECONDS

    async def send(self, topic: str, records: Sequence[Any]) -> None:
        await self.start_send(topic, records)

    def start_send(self, topic: str, records: Sequence[Any]) -> "asyncio.Future[None]":
        loop, random = self._broker.loop, self._random
        future: asyncio.Future[None] = loop.create_future()
        if not records:
            future.set_result(None)
            return future
        self._number += 1
        number = self._number
        self._open[number] = loop.now
        self._futures[number] = future
        delay = 0.0005 + 0.004 * random.random() ** 2
        if random.random() < self._broker.faults.late:
            delay += 3.0 * random.random()
        # A producer keeps its records in order.
        self._last_at = max(self._last_at, loop.now + delay)
        # The bytes may have left the machine before its process dies.
        batch = (number, topic, list(records), loop.now, PROCESS.get())
        if random.random() < 0.5:
            loop.call_at(self._last_at, self._arrive, *batch)
        else:
            loop.outside(self._arrive, *batch, delay=self._last_at - loop.now)
        return future

    async def flush(self, timeout: float) -> bool:
        waiting = list(self._futures.values())
        if not waiting:
            return True
        _, late = await asyncio.wait(waiting, timeout=timeout)
        return not late

    def _arrive(self, number: int, topic: str, records: list[Any], sent_at: float, process: Process) -> None:
        broker, random = self._broker, self._random
        if broker.is_away:
            if broker.loop.now - sent_at < _DELIVERY_TIMEOUT_SECONDS:
                broker.loop.outside(self._arrive, number, topic, records, sent_at, process, delay=0.2)
            else:
                self._tell(number, process, failed=True)
            return
        faults, chance = broker.faults, random.random()
        if chance < faults.lost_sends:
            self._tell(number, process, failed=True, delay=random.random())
            return
        times = 2 if random.random() < faults.repeats else 1
        for _ in range(times):
            for key, value, headers in records:
                broker.append(topic, key, value, headers, sent_at)
        is_lost = random.random() < faults.lost_acks
        self._tell(number, process, failed=is_lost, delay=random.random() * (3.0 if is_lost else 0.004))

    def _tell(self, number: int, process: Process, *, failed: bool, delay: float = 0.0) -> None:
        loop = self._broker.loop
        loop.outside(lambda: loop.spawn(self._settle(number, failed), process), delay=delay)

    async def _settle(self, number: int, failed: bool) -> None:
        self._open.pop(number, None)
        future = self._futures.pop(number, None)
        if future is None or future.done():
            return
        if failed:
            future.set_exception(BrokerUnavailableError("the model doesn't acknowledge it"))
            future.exception()
        else:
            future.set_result(None)


class ModelAdmin:
    """What is asked of the cluster beside records."""

    def __init__(self, broker: ModelBroker) -> None:
        self.broker = broker

    async def ensure_topics(self, **_: object) -> None:
        await self._ask()

    async def topic_ids(self, names: Sequence[str]) -> tuple[str, dict[str, str]]:
        await self._ask()
        return "model", {name: self.broker.topic_ids[name] for name in names if name in self.broker.topic_ids}

    async def _ask(self) -> None:
        await asyncio.sleep(0.003)
        if self.broker.is_away:
            raise BrokerUnavailableError("the model is away")


async def model_lag(admin: ModelAdmin, group: str, names: Sequence[str]) -> list[PartitionLag]:
    """In the place of `kafka.lag.lag`."""
    await admin._ask()
    return admin.broker.lag(group, names)


async def model_oldest(admin: ModelAdmin, lags: Sequence[PartitionLag]) -> dict[TopicPartition, int | None]:
    """In the place of `kafka.lag.oldest_unread_timestamp_ms`."""
    await admin._ask()
    answer: dict[TopicPartition, int | None] = {}
    for each in lags:
        log = admin.broker.logs[each.at]
        if each.records <= 0:
            answer[each.at] = None
        elif each.next_offset >= len(log):
            raise BrokerUnavailableError("the topic was made anew meanwhile")
        else:
            answer[each.at] = log[each.next_offset].timestamp_ms
    return answer
