"""The model broker: topics with partitions, consumer groups that rebalance, and the whole of it away or wiped.

What is written stays; what a producer hears of it, and which record a consumer gets how often, is up to chance. Members
that are dead, or have not been heard of for too long, lose their partitions, and needn't know it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import murmur2

from barnabas.contract import topics
from barnabas.kafka.lag import PartitionLag
from barnabas.kafka.partitions import TopicPartition
from tests.simulator.loop import Process, VirtualLoop
from tests.simulator.tables import at

if TYPE_CHECKING:
    from tests.simulator.consumer import ModelConsumer

PARTITIONS = 3
_TIERS = frozenset(topic.name for topic in topics.DELAY_TIERS)
# The real one is 45 s; a member that is quiet for so long has lost its partitions.
_SESSION_SECONDS = 5.0
_REBALANCE_SECONDS = 0.05
_REVOKE_SECONDS = 2.0


class Stored(NamedTuple):
    """A record of a log."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


@dataclass(slots=True)
class Group:
    """The members of a group, what they hold, and how far they have read."""

    name: str
    members: list["ModelConsumer"] = field(default_factory=list)
    owners: dict[TopicPartition, "ModelConsumer"] = field(default_factory=dict)
    revoking: set[TopicPartition] = field(default_factory=set)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    planned: bool = False


@dataclass(slots=True)
class BrokerFaults:
    """How often which failure happens, and until when the broker is away."""

    lost_sends: float = 0.0
    """A batch isn't written, and its sender hears of a failure."""
    lost_acks: float = 0.0
    """It is written, and its sender hears of a failure."""
    repeats: float = 0.0
    """It is written twice."""
    late: float = 0.0
    """It is written some seconds late."""
    stale_commits: bool = False
    """Commits of a member that has lost the partition are taken."""
    away_until: float = 0.0


class ModelBroker:
    """One broker for all processes."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self.loop = loop
        self.faults = BrokerFaults()
        self.groups: dict[str, Group] = {}
        self.logs: dict[TopicPartition, list[Stored]] = {}
        self.topic_ids: dict[str, str] = {}
        self.kept: list[tuple[str, Stored]] = []
        """What was written to topics that were wiped since."""
        self.wipes = 0
        self._random = random
        self._make()

    @property
    def is_away(self) -> bool:
        """Whether nobody can reach it."""
        return self.loop.now < self.faults.away_until

    def stop_for(self, seconds: float) -> None:
        """It is away for so long."""
        self.faults.away_until = max(self.faults.away_until, self.loop.now + seconds)
        self.loop.outside(self._wake_all, delay=seconds + 0.001)

    def wipe(self) -> None:
        """Its data are deleted: every topic is another, empty one, and no group has read anything."""
        self.kept += [(at.topic, record) for at, log in self.logs.items() for record in log]
        self.wipes += 1
        self._make()
        for group in self.groups.values():
            group.committed.clear()
            for member in list(group.members):
                self._expel(group, member)

    def partition_of(self, topic: str, key: bytes | None) -> TopicPartition:
        """Where a record with this key goes."""
        number = self._random.randrange(PARTITIONS) if key is None else murmur2(key, PARTITIONS)
        return TopicPartition(topic, number)

    def append(self, topic: str, key: bytes | None, value: bytes | None, headers: Any, sent_at: float) -> None:
        """Write a record; a tier's is stamped now, any other's says when it was sent."""
        stamped = self.loop.now if topic in _TIERS else sent_at
        pairs = tuple(headers.items()) if isinstance(headers, Mapping) else tuple(headers or ())
        partition = self.partition_of(topic, key)
        self.logs[partition].append(Stored(key, value, pairs, int(at(stamped).timestamp() * 1_000)))
        for group in self.groups.values():
            owner = group.owners.get(partition)
            if owner is not None:
                owner.fetch_soon(partition)

    def records(self, topic: str) -> list[tuple[int, int, Stored]]:
        """Everything in a topic now: partition, offset, record."""
        return [
            (number, offset, record)
            for number in range(PARTITIONS)
            for offset, record in enumerate(self.logs[TopicPartition(topic, number)])
        ]

    # Groups.

    def group(self, name: str) -> Group:
        """The group of that name."""
        return self.groups.setdefault(name, Group(name))

    def join(self, member: "ModelConsumer") -> None:
        """A member comes, or comes back."""
        group = self.group(member.group)
        if member not in group.members:
            group.members.append(member)
        self.rebalance_soon(group)
        self._watch(group, member)

    def leave(self, member: "ModelConsumer") -> None:
        """A member goes in good order; what it held is free."""
        group = self.group(member.group)
        if member in group.members:
            group.members.remove(member)
        self._free(group, member)

    def commit(self, member: "ModelConsumer", offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """A commit arrives; one for a topic that was wiped since is refused."""
        group = self.group(member.group)
        if generation != self.wipes:
            return
        if self.is_away:
            # Whoever sent it keeps it, and sends it again.
            if member.process.alive:
                self.loop.outside(member.commit_again, offsets, generation, delay=0.5)
            return
        for partition, offset in offsets.items():
            if group.owners.get(partition) is member or self.faults.stale_commits:
                group.committed[partition] = offset

    def rebalance_soon(self, group: Group) -> None:
        """Share the partitions out anew."""
        if not group.planned:
            group.planned = True
            self.loop.outside(self._rebalance, group, delay=_REBALANCE_SECONDS)

    def released(self, group: Group, partitions: Sequence[TopicPartition], member: "ModelConsumer") -> None:
        """A member has let go of what it was asked for."""
        for partition in partitions:
            group.revoking.discard(partition)
            if group.owners.get(partition) is member:
                del group.owners[partition]
        self.rebalance_soon(group)

    def lag(self, group_name: str, names: Sequence[str]) -> list[PartitionLag]:
        """As `kafka.lag.lag` tells it."""
        committed = self.group(group_name).committed
        return [
            PartitionLag(name, number, committed.get(place), 0, len(self.logs[place]))
            for name in names
            if name in self.topic_ids
            for number in range(PARTITIONS)
            for place in (TopicPartition(name, number),)
        ]

    def _rebalance(self, group: Group) -> None:
        group.planned = False
        if self.is_away:
            self.rebalance_soon(group)
            return
        joined = sorted(group.members, key=lambda member: member.number)
        if not joined:
            return
        moving: dict[ModelConsumer, list[TopicPartition]] = {}
        coming: dict[ModelConsumer, list[TopicPartition]] = {}
        for topic in sorted({topic for member in joined for topic in member.topics}):
            able = [member for member in joined if topic in member.topics]
            for number in range(PARTITIONS):
                # As `range` does: the same partitions of all topics go to one member.
                wanted = able[number * len(able) // PARTITIONS]
                partition = TopicPartition(topic, number)
                owner = group.owners.get(partition)
                if owner is None:
                    group.owners[partition] = wanted
                    coming.setdefault(wanted, []).append(partition)
                elif owner is not wanted and partition not in group.revoking:
                    group.revoking.add(partition)
                    moving.setdefault(owner, []).append(partition)
        for member, partitions in coming.items():
            member.assign(partitions)
        for member, partitions in moving.items():
            member.revoke(group, partitions)
            self.loop.outside(self._overdue, group, member, partitions, delay=_REVOKE_SECONDS)

    def _overdue(self, group: Group, member: "ModelConsumer", partitions: Sequence[TopicPartition]) -> None:
        """Whoever doesn't let go in time is out."""
        if any(partition in group.revoking and group.owners.get(partition) is member for partition in partitions):
            self._expel(group, member)

    def _watch(self, group: Group, member: "ModelConsumer") -> None:
        if member not in group.members:
            return
        process: Process = member.process
        if process.alive and not process.paused:
            member.heard_at = self.loop.now
        if self.loop.now - member.heard_at > _SESSION_SECONDS:
            self._expel(group, member)
            return
        self.loop.outside(self._watch, group, member, delay=1.0)

    def _expel(self, group: Group, member: "ModelConsumer") -> None:
        if member in group.members:
            group.members.remove(member)
        self._free(group, member)
        member.lose()

    def _free(self, group: Group, member: "ModelConsumer") -> None:
        for partition in [partition for partition, owner in group.owners.items() if owner is member]:
            del group.owners[partition]
            group.revoking.discard(partition)
        self.rebalance_soon(group)

    def _make(self) -> None:
        for topic in topics.ALL:
            self.topic_ids[topic.name] = f"{topic.name}/{self.wipes}"
            for number in range(PARTITIONS):
                self.logs[TopicPartition(topic.name, number)] = []

    def _wake_all(self) -> None:
        for group in self.groups.values():
            for partition, owner in group.owners.items():
                owner.fetch_soon(partition)
