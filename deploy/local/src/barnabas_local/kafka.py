"""A real Apache Kafka: one broker, KRaft, loopback only, as an ordinary process.

What it stores survives a kill -9 of the process (Kafka leaves flushing to the operating system, here as everywhere).
The address never changes while the object lives, so clients find a restarted broker where the old one was.
"""

import asyncio
import base64
import signal
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from barnabas_local import ports
from barnabas_local.errors import ServerStartError
from barnabas_local.jars import KAFKA, verified_jars
from barnabas_local.java import find_java
from barnabas_local.processes import Child, spawn, tail

NAME: Final = "kafka"

_FORMAT_SECONDS = 60
# After a kill -9 every open segment is read again; hundreds of them take a while on a busy machine.
_READY_SECONDS = 120
_STOP_STEPS = ((signal.SIGTERM, 20.0),)
_POLL_SECONDS = 0.05

# Compiling well what runs for a minute costs more than it saves: 3.7 against 6.9 s of CPU until the broker answers.
_JAVA_SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
# As Kafka's own scripts start it.
_JAVA_LONG_LIVED = (
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:-UsePerfData",
)

# The message is all that a reader of a development log wants; levels that repeat themselves are turned down.
_LOG4J = """\
status = error
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %p %c{1} %m%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
logger.group.name = org.apache.kafka.coordinator.group
logger.group.level = info
"""

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # A member that joins a busy group gets its share after one heartbeat interval: 1.0 s with 500 ms, else 5 s.
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.initial.rebalance.delay.ms": "0",
    # One broker holds one copy of everything.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "2",
    # Nobody reads a group's topic larger than this on one machine; the default takes 128 MB of heap.
    "log.cleaner.dedupe.buffer.size": "16777216",
    # Two indexes per segment are allocated at this size; hundreds of partitions are a lot of address space at 10 MB.
    "log.index.size.max.bytes": "1048576",
    # A broker that was killed may register again only when the controller has given up its former self: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


@dataclass(slots=True)
class Kafka:
    """One broker with its directory. `start`, `stop` and `kill` may follow each other in any order."""

    directory: Path
    log: Path
    port: int = 0
    """0 = a free one, kept for as long as this object lives."""
    heap_mb_min: int = 256
    heap_mb_max: int = 768
    short_lived: bool = False
    """Costs half the CPU to start and has less throughput in the long run: for tests."""
    avoid_ports: frozenset[int] = frozenset()
    """Ports that others will listen on, and may not yet."""
    cluster_id: str = ""
    """What an empty directory is made a part of; a cluster of its own where this is empty."""
    child: Child | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """Its name in logs and states."""
        return NAME

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"Kafka {KAFKA.rpartition(':')[2]}"

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{ports.LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Start the broker and return when it answers clients."""
        if self.port:
            ports.require_free(self.port, wanted_by="Kafka")
        else:
            self.port = ports.free_port()
        java, jars = await asyncio.gather(asyncio.to_thread(find_java), asyncio.to_thread(verified_jars))
        logging = self.directory / "log4j2.properties"
        launch = [str(java), "-cp", ":".join(map(str, jars)), f"-Dlog4j2.configurationFile={logging}"]
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        logging.write_text(_LOG4J, encoding="utf-8")
        if not self._log_dir.exists():
            await self._format(launch)
        config = self._write_config(self._log_dir)
        heap = [f"-Xms{self.heap_mb_min}m", f"-Xmx{self.heap_mb_max}m"]
        tuning = _JAVA_SHORT_LIVED if self.short_lived else _JAVA_LONG_LIVED
        self.child = spawn(NAME, [*launch, *heap, *tuning, "kafka.Kafka", str(config)], log=self.log)
        await self._answers(self.child)

    async def stop(self, *, at_once: bool = False) -> None:
        """Shut down in good order, or at once where nobody will want the data again."""
        if self.child is not None:
            await self.child.stop(() if at_once else _STOP_STEPS)

    def kill(self) -> None:
        """kill -9."""
        if self.child is not None:
            self.child.kill()

    @property
    def _log_dir(self) -> Path:
        return self.directory / "log"

    async def _format(self, launch: list[str]) -> None:
        """Make an empty log directory; one that was only half made is never taken for a whole one."""
        new = self.directory / f"log.new-{uuid.uuid4().hex}"
        config = self._write_config(new)
        cluster_id = self.cluster_id or new_cluster_id()
        child = spawn(
            f"{NAME}-format",
            [
                *launch,
                *_JAVA_SHORT_LIVED,
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={cluster_id}",
                "-c",
                str(config),
            ],
            log=self.log,
        )
        try:
            code = await child.wait(_FORMAT_SECONDS)
        finally:
            child.kill()
        if code != 0:
            raise ServerStartError(name=NAME, reason="formatting its storage failed", log_tail=tail(self.log, 10))
        new.rename(self._log_dir)

    def _write_config(self, log_dir: Path) -> Path:
        # The controller talks to nobody but its own process, so its port may differ from run to run: the quorum is
        # static (`controller.quorum.voters`), hence not recorded in the log.
        controller = ports.free_port(avoid=self.avoid_ports | {self.port})
        addresses = {
            "log.dirs": str(log_dir),
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{ports.LOOPBACK}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.voters": f"1@{ports.LOOPBACK}:{controller}",
        }
        config = self.directory / "server.properties"
        config.write_text("".join(f"{k}={v}\n" for k, v in (_SETTINGS | addresses).items()), encoding="utf-8")
        return config

    async def _answers(self, child: Child) -> None:
        """Wait until this very broker answers: a stranger on the same port has another cluster id."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if child.exit_code() is not None:
                raise ServerStartError(name=NAME, reason="it ended at once", log_tail=child.log_tail())
            if not ports.is_free(self.port):
                break
            await asyncio.sleep(_POLL_SECONDS)
        client = AdminClient(
            {
                "bootstrap.servers": self.bootstrap,
                "reconnect.backoff.max.ms": 200,
                "socket.timeout.ms": 5000,
                "log_level": 0,
            }
        )
        cluster_id = self._cluster_id()
        while time.monotonic() < deadline:
            if child.exit_code() is not None:
                raise ServerStartError(name=NAME, reason="it ended at once", log_tail=child.log_tail())
            with suppress(KafkaException):
                seen = await asyncio.to_thread(client.list_topics, timeout=1.0)
                # The client's annotations know it as None only.
                if str(seen.cluster_id) == cluster_id and seen.brokers:
                    return
            await asyncio.sleep(_POLL_SECONDS)
        raise ServerStartError(name=NAME, reason=f"no answer within {_READY_SECONDS} s", log_tail=child.log_tail())

    def _cluster_id(self) -> str:
        meta = (self._log_dir / "meta.properties").read_text(encoding="utf-8").splitlines()
        return next(line.partition("=")[2] for line in meta if line.startswith("cluster.id="))


def new_cluster_id() -> str:
    """One that no other cluster has."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
