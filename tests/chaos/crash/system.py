"""A whole system that dies often: servers of its own, and services that are started again the moment they have ended.

`barnabas up` waits longer before each restart of what keeps dying, as it should; here every process dies every few
seconds. Leases, the lead and the sessions of consumers are short, so that what a death leaves behind is soon found.
"""

import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from barnabas.client.api import AsyncClient
from barnabas.kafka.admin import ensure_topics
from barnabas.postgres.migrate import migrate
from barnabas_local import ports
from barnabas_local.database import DATABASE, Logins, prepare_database
from barnabas_local.kafka import Kafka
from barnabas_local.services import ServiceProcess, plan_services, service_names
from tests.chaos.crash.arming import ARMED_VARIABLE, Arming
from tests.chaos.ledger import LEDGER_VARIABLE
from tests.support.eventually import eventually
from tests.support.servers import small_servers

ROOT = Path(__file__).parents[3]
BUILD = Path(__file__).parent / "build"
_SETTINGS = {
    "BARNABAS_LEASE_SECONDS": "3",
    "BARNABAS_LEADER_LEASE_SECONDS": "2",
    # A worker keeps five seconds of it for the hand-back: its patience with handlers is over at once.
    "BARNABAS_DRAIN_SECONDS": "5",
    # Few slots and a short look-ahead: a flood of some hundreds is a backlog.
    "BARNABAS_SLOTS": "24",
    "BARNABAS_LOOK_AHEAD_BYTES": "65536",
    # Deliveries wait in memory behind a slow endpoint.
    "BARNABAS_CALLS_PER_ENDPOINT": "2",
}
_READY_SECONDS = 300.0
# A process that ends by itself, because a server didn't answer in time, would be started again in a circle.
_REST_SECONDS = 0.5
# A process that is told to stop before it listens to signals is ended by them.
_ENDED_WELL = (0, -signal.SIGKILL, -signal.SIGTERM)


class QuickKafka(Kafka):
    """A broker that takes a silent member for dead after three seconds, instead of six."""

    def _write_config(self, log_dir: Path) -> Path:
        config = super()._write_config(log_dir)
        with config.open("a", encoding="utf-8") as file:
            # The last one of a name counts.
            file.write("group.consumer.min.session.timeout.ms=3000\ngroup.consumer.session.timeout.ms=3000\n")
        return config


@dataclass(slots=True)
class Kept:
    """One service, started again whenever it ends."""

    service: ServiceProcess
    pid: int = 0
    starts: int = 0
    _nursery: Any = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self, env: Mapping[str, str]) -> None:
        """Until `stop`."""
        with self.service.log.open("ab") as log:
            self._nursery = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.crash.nursery",
                self.service.argv[-1],
                env=dict(env),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            while not self._stop.is_set():
                self._nursery.stdin.write(b"\n")
                self.pid = await self._told()
                self.starts += 1
                if self._stop.is_set():
                    self.send(signal.SIGTERM)
                if await self._told() not in _ENDED_WELL:
                    await asyncio.sleep(_REST_SECONDS)
        finally:
            self._nursery.kill()
            await self._nursery.wait()

    def send(self, number: signal.Signals) -> None:
        """Signal the process that runs now, if one does."""
        # 0 would be everybody of our own group.
        if self.pid:
            with suppress(ProcessLookupError):  # it has died a moment ago
                os.kill(self.pid, number)

    def stop(self) -> None:
        """End it, and don't start it again."""
        self._stop.set()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)

    async def _told(self) -> int:
        line: bytes = await self._nursery.stdout.readline()
        assert line, f"the nursery of {self.service.name} has ended: {self.service.log.read_text()[-2000:]}"
        return int(line)


@dataclass(slots=True)
class System:
    """A running system. Made by `open_system`."""

    directory: Path
    api_url: str
    admin_key: str
    kafka: str
    logins: Logins
    superuser_dsn: str
    arming: Arming
    ledger: Path
    services: dict[str, Kept]

    def client(self, api_key: str | None = None) -> AsyncClient:
        """A client with this key, or with the admin's."""
        return AsyncClient(self.api_url, api_key or self.admin_key)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Any]:
        """A superuser's connection to the product's database."""
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            yield connection
        finally:
            await connection.close()

    def named(self, kind: str) -> list[Kept]:
        """The processes of one service."""
        return [kept for kept in self.services.values() if kept.service.kind == kind.replace("-", "_")]

    async def until_ready(self, timeout: float = _READY_SECONDS) -> None:
        """Wait until every service says that it is ready."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            for kept in self.services.values():

                async def ready(kept: Kept = kept) -> bool:
                    try:
                        return (await http.get(f"{kept.service.ops_url}/readyz")).is_success
                    except httpx.HTTPError:
                        return False

                await eventually(ready, timeout=timeout)

    @property
    def mistakes(self) -> list[str]:
        """What the logs have of errors that nobody foresaw: a service that meets one ends, and it is a bug."""
        return [
            f"{name}: {line}"
            for name in self.services
            for line in self.log(name).splitlines()
            if '"code":"internal"' in line
        ]

    def log(self, name: str) -> str:
        """The log of one service."""
        log = self.services[name].service.log
        return log.read_text(errors="replace") if log.exists() else ""


@asynccontextmanager
async def open_system(
    *, workers: int = 1, app: str = "tests.support.ledger_handlers:app", env: Mapping[str, str] | None = None
) -> AsyncIterator[System]:
    """A system of one's own on free ports, of the test build; everything is stopped and thrown away at the end."""
    directory = _own_directory()
    kafka, postgres = small_servers(directory, kafka_kind=QuickKafka)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        for server in (kafka, postgres):
            stack.push_async_callback(server.stop, at_once=True)
        await asyncio.gather(kafka.start(), postgres.start())
        logins = await prepare_database(postgres.superuser_dsn)
        await asyncio.gather(ensure_topics(kafka.bootstrap), migrate(logins.owner_dsn))
        system = _planned(directory, kafka.bootstrap, postgres.superuser_dsn, logins, workers=workers, app=app)
        keeping = await stack.enter_async_context(asyncio.TaskGroup())
        for kept in system.services.values():
            # What a developer has set for other runs means nothing here.
            decided = {name: value for name, value in kept.service.env.items() if not _is_developers(name, value)}
            keeping.create_task(kept.keep(decided | _build(system) | _SETTINGS | dict(env or {})))
            stack.callback(kept.stop)
        await system.until_ready()
        yield system


def _own_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="barnabas-crash-"))
    # Others may enter: Postgres refuses root, and then runs as somebody else.
    directory.chmod(0o755)
    return directory


def _planned(directory: Path, kafka: str, superuser_dsn: str, logins: Logins, *, workers: int, app: str) -> System:
    (directory / "logs").mkdir()
    admin_key, port = secrets.token_urlsafe(32), ports.free_port()
    taken = {port}
    ops_ports: dict[str, int] = {}
    for name in service_names(workers=workers):
        ops_ports[name] = ports.free_port(avoid=frozenset(taken))
        taken.add(ops_ports[name])
    planned = plan_services(
        kafka=kafka,
        logins=logins,
        http_host=ports.LOOPBACK,
        http_port=port,
        ops_ports=ops_ports,
        admin_key=admin_key,
        app=app,
        logs=directory / "logs",
    )
    return System(
        directory=directory,
        api_url=f"http://{ports.LOOPBACK}:{port}",
        admin_key=admin_key,
        kafka=kafka,
        logins=logins,
        superuser_dsn=f"{superuser_dsn.rsplit('/', 1)[0]}/{DATABASE}",
        arming=Arming(directory / "armed"),
        ledger=directory / "ledger",
        services={service.name: Kept(service) for service in planned},
    )


def _is_developers(name: str, value: str) -> bool:
    return name.startswith("BARNABAS_") and os.environ.get(name) == value


def _build(system: System) -> dict[str, str]:
    """What makes the services a test build."""
    system.ledger.mkdir(exist_ok=True)
    return {
        "PYTHONPATH": f"{BUILD}{os.pathsep}{ROOT}",
        ARMED_VARIABLE: str(system.arming.directory),
        LEDGER_VARIABLE: str(system.ledger),
    }
