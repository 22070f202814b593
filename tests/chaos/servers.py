"""Kafka and Postgres of a chaos run: real ones of its own behind proxies, started again when they die.

The stack's services and the load know the proxies only. Kafka tells its clients the proxy's address, so it can't be
reached past it; faults act on the servers themselves, and what judges the run in the end reads them directly.
"""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from barnabas_local import ports
from barnabas_local.kafka import Kafka
from barnabas_local.keeping import keep
from barnabas_local.postgres import Postgres
from tests.chaos.proxy import Proxy, open_proxy
from tests.support.eventually import eventually

_BACK_SECONDS = 400.0


@dataclass(slots=True)
class AdvertisedKafka(Kafka):
    """A broker that sends its clients to another port of loopback."""

    advertised_port: int = 0

    def _write_config(self, log_dir: Path) -> Path:
        # Named, because a dataclass with slots is made anew by its decorator, which a bare super() doesn't know.
        config = Kafka._write_config(self, log_dir)
        # Of two lines with the same name the last one counts.
        with config.open("a", encoding="utf-8") as file:
            file.write(f"advertised.listeners=PLAINTEXT://{ports.LOOPBACK}:{self.advertised_port}\n")
        return config


@dataclass(slots=True)
class ChaosServers:
    """The servers of a run."""

    kafka: AdvertisedKafka
    postgres: Postgres
    kafka_proxy: Proxy
    postgres_proxy: Proxy
    restarts: Counter[str] = field(default_factory=Counter)
    """How often each came back."""

    @property
    def kafka_address(self) -> str:
        """Where clients find Kafka."""
        return self.kafka_proxy.address

    @property
    def postgres_dsn(self) -> str:
        """The superuser's address, by the proxy: whoever derives logins from it goes through it, too."""
        return through(self.postgres.superuser_dsn, self.postgres_proxy)

    async def kill(self, name: str) -> None:
        """kill -9 of a server; returns when it is back."""
        await self._end(name, lambda: None)

    async def wipe_kafka(self) -> None:
        """kill -9, and everything that it has stored is gone before it starts again."""
        wiped = self.kafka.directory / f"wiped-{self.restarts['kafka']}"
        await self._end("kafka", lambda: (self.kafka.directory / "log").rename(wiped))

    async def _end(self, name: str, meanwhile: Callable[[], object]) -> None:
        await eventually(lambda: self._lives(name), timeout=_BACK_SECONDS)
        before = self.restarts[name]
        # Nothing is awaited between the two: whoever restarts it can't come in between.
        (self.kafka if name == "kafka" else self.postgres).kill()
        meanwhile()
        await eventually(lambda: self.restarts[name], until=lambda count: count > before, timeout=_BACK_SECONDS)

    def _lives(self, name: str) -> bool:
        child = (self.kafka if name == "kafka" else self.postgres).child
        return child is not None and child.exit_code() is None


@asynccontextmanager
async def open_chaos_servers(choice: random.Random) -> AsyncIterator[ChaosServers]:
    """Kafka and Postgres behind proxies; stopped and thrown away at the end."""
    with _own_directory() as directory:
        # Nobody listens on them for a while, and they must not be given twice.
        kafka_port = ports.free_port()
        postgres_port = ports.free_port(avoid=frozenset({kafka_port}))
        taken = frozenset({kafka_port, postgres_port})
        kafka = AdvertisedKafka(
            directory / "kafka", directory / "kafka.log", port=kafka_port, avoid_ports=taken, short_lived=True
        )
        postgres = Postgres(directory / "postgres", directory / "postgres.log", port=postgres_port)
        async with (
            open_proxy(kafka_port, choice=choice, avoid=taken) as kafka_proxy,
            open_proxy(postgres_port, choice=choice, avoid=taken) as postgres_proxy,
        ):
            kafka.advertised_port = kafka_proxy.port
            servers = ChaosServers(kafka, postgres, kafka_proxy, postgres_proxy)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(kafka.start())
                    both.create_task(postgres.start())
                async with asyncio.TaskGroup() as keeping:
                    kept = [keeping.create_task(_keep(servers, server)) for server in (kafka, postgres)]
                    try:
                        yield servers
                    finally:
                        for task in kept:
                            task.cancel()
            finally:
                # Nobody wants the data again.
                await kafka.stop(at_once=True)
                await postgres.stop(at_once=True)


def through(dsn: str, proxy: Proxy) -> str:
    """The same database by the proxy."""
    server, database = dsn.rsplit("/", 1)
    return f"{server.rsplit(':', 1)[0]}:{proxy.port}/{database}"


@contextmanager
def _own_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="barnabas-chaos-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        # Other users may enter: Postgres refuses root, and then runs as somebody else.
        directory.chmod(0o755)
        yield directory


async def _keep(servers: ChaosServers, server: AdvertisedKafka | Postgres) -> None:
    def restarted() -> None:
        servers.restarts[server.name] += 1

    await keep(server, say=lambda _line: None, restarted=restarted)
