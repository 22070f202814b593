"""Real Kafka and real Postgres for tests: servers that already run, containers, or processes of our own.

`BARNABAS_KAFKA` and `BARNABAS_POSTGRES` name servers that already run; `BARNABAS_TEST_CONTAINERS=1` asks for containers
where an engine answers; else the local stack's servers run for as long as the session does, and die with it.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg

from barnabas.postgres.migrate import migrate
from barnabas_local import ports
from barnabas_local.database import Logins, drop_database, prepare_database
from barnabas_local.kafka import Kafka
from barnabas_local.postgres import Postgres
from tests.support.eventually import at_last

T = TypeVar("T")

_PREFIX = "barnabas-tests-"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where this session's servers are."""

    kafka: str
    """Bootstrap address."""
    superuser_dsn: str
    template: str
    """A migrated database without connections, to be copied."""

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Logins]:
        """A migrated database of one's own, dropped at the end."""
        name = f"barnabas_test_{secrets.token_hex(6)}"
        try:
            yield await _when_unused(
                lambda: prepare_database(self.superuser_dsn, database=name, template=self.template)
            )
        finally:
            await self.drop(name)

    async def drop(self, name: str) -> None:
        """Drop a database, whoever is connected; nothing happens if there is none."""
        await _when_unused(lambda: drop_database(self.superuser_dsn, name))


@asynccontextmanager
async def open_servers() -> AsyncIterator[Servers]:
    """The servers of this session, with a migrated template database on them."""
    kafka, postgres = os.environ.get("BARNABAS_KAFKA"), os.environ.get("BARNABAS_POSTGRES")
    if kafka and postgres:
        source = _given(kafka, postgres)
    elif kafka or postgres:
        message = "set both BARNABAS_KAFKA and BARNABAS_POSTGRES, or neither: tests don't mix servers"
        raise RuntimeError(message)
    elif os.environ.get("BARNABAS_TEST_CONTAINERS") == "1" and _container_engine_answers():
        source = _containers()
    else:
        source = _processes()
    async with source as (bootstrap, superuser_dsn):
        template = f"barnabas_template_{secrets.token_hex(6)}"
        try:
            await migrate((await prepare_database(superuser_dsn, database=template)).owner_dsn)
            yield Servers(kafka=bootstrap, superuser_dsn=superuser_dsn, template=template)
        finally:
            await _when_unused(lambda: drop_database(superuser_dsn, template))


async def _when_unused(step: Callable[[], Awaitable[T]]) -> T:
    """A step that wants a database for itself: Postgres gives the connections that were there five seconds to end."""
    return await at_last(step, refused=asyncpg.ObjectInUseError)


def small_servers(directory: Path, *, kafka_kind: type[Kafka] = Kafka) -> tuple[Kafka, Postgres]:
    """Servers of one's own that aren't started yet, with little memory."""
    # Both are free until their servers listen, and must not be given twice.
    port = ports.free_port()
    kafka = kafka_kind(
        directory / "kafka",
        directory / "kafka.log",
        port=ports.free_port(avoid=frozenset({port})),
        avoid_ports=frozenset({port}),
        heap_mb_max=512,
        short_lived=True,
    )
    return kafka, Postgres(directory / "postgres", directory / "postgres.log", port=port, shared_buffers_mb=128)


@asynccontextmanager
async def _given(kafka: str, postgres: str) -> AsyncIterator[tuple[str, str]]:
    yield kafka, postgres


@asynccontextmanager
async def _processes() -> AsyncIterator[tuple[str, str]]:
    with _own_directory() as directory:
        kafka, postgres = small_servers(directory)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(kafka.start())
                both.create_task(postgres.start())
            yield kafka.bootstrap, postgres.superuser_dsn
        finally:
            # Nobody wants the data again.
            await kafka.stop(at_once=True)
            await postgres.stop(at_once=True)


@contextmanager
def _own_directory() -> Iterator[Path]:
    """A temporary directory; those of sessions that were killed are swept up on the way."""
    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with _locked(old) as ours:
            if ours:
                shutil.rmtree(old, ignore_errors=True)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with _locked(directory) as ours:
            # Another session's sweep may have come in between, and has removed it then.
            if not ours or not directory.exists():
                continue
            try:
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)
            return


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether nobody else held the directory; if so, it is held inside the block."""
    try:
        # Its own descriptor is locked: there is no moment in which the directory exists and can't be locked.
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _container_engine_answers() -> bool:
    import docker  # type: ignore[import-untyped]  # its stubs are a package of their own, for one call

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as failure:
        warnings.warn(f"BARNABAS_TEST_CONTAINERS=1, but no container engine answers: {failure}", stacklevel=2)
        return False
    return True


@asynccontextmanager
async def _containers() -> AsyncIterator[tuple[str, str]]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs
    from testcontainers.postgres import PostgresContainer

    # Clients are told an address that must be right outside the container, so the port is chosen before it starts.
    port = ports.free_port()
    kafka = DockerContainer("apache/kafka:4.3.1").with_bind_ports(port, port)
    environment = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://{ports.LOOPBACK}:{port}",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS": "500",
        "GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS": "500",
        "GROUP_CONSUMER_SESSION_TIMEOUT_MS": "6000",
        "GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS": "6000",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    for name, value in environment.items():
        kafka = kafka.with_env(f"KAFKA_{name}", value)
    postgres = PostgresContainer("postgres:18", driver=None).with_command("postgres -c max_connections=200")

    def start() -> str:
        kafka.start()
        postgres.start()
        wait_for_logs(kafka, "Kafka Server started", timeout=60)
        return str(postgres.get_connection_url())

    try:
        superuser_dsn = await asyncio.to_thread(start)
        yield f"{ports.LOOPBACK}:{port}", superuser_dsn
    finally:
        await asyncio.to_thread(kafka.stop)
        await asyncio.to_thread(postgres.stop)
