"""Three brokers of one's own that are one cluster: each has every record, and any two go on without the third.

Each is a voter of the metadata quorum as well, as in small clusters. Addresses, the cluster's id and the voters stay
the same over all restarts.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from barnabas_local import ports
from barnabas_local.kafka import Kafka, new_cluster_id
from tests.support.eventually import eventually

COPIES = 3
_IN_STEP_MIN = 2
# A broker that was killed reads every open segment again, beside two that work.
_WHOLE_SECONDS = 240.0
_SHOWN = 5

_SETTINGS = {
    "default.replication.factor": COPIES,
    "offsets.topic.replication.factor": COPIES,
    "transaction.state.log.replication.factor": COPIES,
    "transaction.state.log.min.isr": _IN_STEP_MIN,
    "share.coordinator.state.topic.replication.factor": COPIES,
    "share.coordinator.state.topic.min.isr": _IN_STEP_MIN,
}


@dataclass(slots=True)
class Broker(Kafka):
    """One of several."""

    number: int = 1
    voters: Mapping[int, int] = field(default_factory=dict)
    """The port of each one's controller, by number."""

    def quorum(self) -> tuple[int, int]:
        """The epoch of the metadata quorum and who leads it, as this one has written down; -1 while nobody does."""
        told = json.loads((self._log_dir / "__cluster_metadata-0" / "quorum-state").read_text(encoding="utf-8"))
        return told["leaderEpoch"], told["leaderId"]

    def lives(self) -> bool:
        """Whether its process runs."""
        return self.child is not None and self.child.exit_code() is None

    def send(self, number: signal.Signals) -> None:
        """Signal its process."""
        assert self.child is not None, "it has been started"
        self.child.send(number)

    def _write_config(self, log_dir: Path) -> Path:
        # Named, because a dataclass with slots is made anew by its decorator, which a bare super() doesn't know.
        config = Kafka._write_config(self, log_dir)
        controller = f"CONTROLLER://{ports.LOOPBACK}:{self.voters[self.number]}"
        voters = (f"{number}@{ports.LOOPBACK}:{port}" for number, port in self.voters.items())
        own = {
            "node.id": self.number,
            "listeners": f"PLAINTEXT://{self.bootstrap},{controller}",
            "controller.quorum.voters": ",".join(voters),
        }
        # Of two lines with the same name the last one counts.
        with config.open("a", encoding="utf-8") as file:
            file.write("".join(f"{name}={value}\n" for name, value in (_SETTINGS | own).items()))
        return config


@dataclass(slots=True)
class Cluster:
    """The brokers, by number."""

    brokers: Mapping[int, Broker]

    @property
    def bootstrap(self) -> str:
        """Where clients connect: to whoever lives."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    async def start(self) -> None:
        """All at once: none of them is well without a second one."""
        async with asyncio.TaskGroup() as group:
            for broker in self.brokers.values():
                group.create_task(broker.start())

    async def stop(self) -> None:
        """Nobody wants the data again."""
        for broker in self.brokers.values():
            await broker.stop(at_once=True)

    async def controller(self) -> int:
        """Who leads the metadata quorum.

        Read where each voter has to write it down before it acts on it: to clients the brokers name any one of
        themselves, and the library can't describe the quorum.
        """
        return await eventually(self._controller, until=lambda leader: leader in self.brokers)

    async def leads_most(self, topic: str) -> int:
        """Who leads most of a topic's partitions."""
        told = await eventually(lambda: asyncio.to_thread(self._told_by, min(self._living())))
        leaders: Counter[int] = Counter(partition.leader for partition in told.topics[topic].partitions.values())
        return leaders.most_common(1)[0][0]

    async def kill(self, number: int, *, ahead_seconds: float) -> None:
        """kill -9 of one, after the others have stood still for a moment: its last records are nobody else's."""
        others = [broker for broker in self.brokers.values() if broker.number != number]
        for other in others:
            other.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(ahead_seconds)
            self.brokers[number].kill()
        finally:
            for other in others:
                other.send(signal.SIGCONT)

    async def until_led_without(self, gone: int) -> None:
        """Wait until the others lead every partition, and the quorum."""

        def is_led(partition: Any) -> bool:
            return partition.leader in self.brokers and partition.leader != gone

        await eventually(self._controller, until=lambda leader: leader in self.brokers and leader != gone)
        await self._until_all(is_led)

    async def until_whole(self) -> None:
        """Wait until every partition has all of its copies in step."""
        await self._until_all(lambda partition: len(partition.isrs) == COPIES)

    async def _until_all(self, wanted: Callable[[Any], bool]) -> None:
        """Until each living broker says so: one that has come back tells of the time before its death at first."""

        def others() -> list[str]:
            for number in self._living():
                if found := self._other(number, wanted):
                    return found
            return []

        await eventually(lambda: asyncio.to_thread(others), until=lambda found: not found, timeout=_WHOLE_SECONDS)

    def _other(self, number: int, wanted: Callable[[Any], bool]) -> list[str]:
        """Some partitions that aren't as they should be, as one broker says."""
        told = self._told_by(number)
        if told is None:
            return [f"broker {number} does not answer"]
        return [
            f"{name}-{partition.id}: led by {partition.leader}, in step {partition.isrs}"
            for name, topic in told.topics.items()
            for partition in topic.partitions.values()
            if not wanted(partition)
        ][:_SHOWN]

    def _told_by(self, number: int) -> Any:
        # A client of its own each time: one that knows the others as well asks any of them.
        client = AdminClient({"bootstrap.servers": self.brokers[number].bootstrap, "log_level": 0})
        try:
            return client.list_topics(timeout=5)
        except KafkaException:
            return None

    def _living(self) -> list[int]:
        return [number for number, broker in self.brokers.items() if broker.lives()]

    def _controller(self) -> int:
        """As the newest of the living voters' words has it."""
        return max(self.brokers[number].quorum() for number in self._living())[1]


@asynccontextmanager
async def open_cluster(directory: Path) -> AsyncIterator[Cluster]:
    """Three brokers below `directory`; stopped at the end."""
    chosen: list[int] = []
    for _ in range(2 * COPIES):
        # Nobody listens on them for a while, and they must not be given twice.
        chosen.append(ports.free_port(avoid=frozenset(chosen)))
    voters = dict(enumerate(chosen[COPIES:], start=1))
    cluster_id = new_cluster_id()
    cluster = Cluster(
        {
            number: Broker(
                directory / f"broker-{number}",
                directory / f"broker-{number}.log",
                port=port,
                cluster_id=cluster_id,
                heap_mb_max=384,
                short_lived=True,
                avoid_ports=frozenset(chosen),
                number=number,
                voters=voters,
            )
            for number, port in enumerate(chosen[:COPIES], start=1)
        }
    )
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()
