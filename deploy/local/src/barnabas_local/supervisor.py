"""Runs the whole system on one machine: servers first, then services, restarts what dies, stops all in order.

One supervisor per directory: it holds the directory's lock for as long as it lives, and its children die with it. What
a killed supervisor may have left behind is ended by the next one before anything is started.
"""

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil

from barnabas.errors import BarnabasError
from barnabas_local import ports
from barnabas_local.database import Logins, prepare_database
from barnabas_local.fleet import Fleet
from barnabas_local.kafka import Kafka
from barnabas_local.keeping import Kept, keep
from barnabas_local.paths import Home
from barnabas_local.postgres import Postgres
from barnabas_local.processes import Identity, rotate, stop_strangers
from barnabas_local.services import DRAIN_SECONDS, ServiceProcess, plan_services, service_names
from barnabas_local.stack_file import (
    Stack,
    mark_stopped,
    read_ports,
    read_processes,
    read_stack,
    write_ports,
    write_processes,
    write_stack,
)
from barnabas_local.tenant import ensure_demo_tenant

HTTP_PORT = 8080
SUPERVISOR = "supervisor"

_HTTP = "http"


@dataclass(frozen=True, slots=True)
class Options:
    """What `barnabas up` was asked for."""

    home: Home
    host: str = ports.LOOPBACK
    port: int = HTTP_PORT
    """0 = a free one, the one of the last run if possible."""
    workers: int = 1
    workers_max: int | None = None
    """With it the stack scales itself, from `workers` up to so many; without, there are always `workers`."""
    ingest: int = 1
    """Ingest processes on the one address."""
    app: str | None = None
    kafka: str | None = None
    """A Kafka that already runs."""
    postgres: str | None = None
    """A Postgres that already runs, with a login that may make roles and databases."""
    topic_replication: int = 1
    """Copies of each topic that has to be made."""
    ready_seconds: float = 60.0
    """How long the services may take to be ready once the servers are."""


async def supervise(
    options: Options,
    *,
    stop: asyncio.Event,
    say: Callable[[str], None],
    ready: Callable[[Stack], None],
    plan: Callable[..., list[ServiceProcess]] = plan_services,
) -> None:
    """Run the stack until `stop`; the caller holds the directory's lock.

    `say` gets one line per thing that a person should know, `ready` is called once when everything works. Raises if
    the stack doesn't come up; nothing is left running in either case.
    """
    stack = _Running(options=options, say=say, plan=plan)
    try:
        if await _until(stop, stack.start()):
            ready(stack.stack)
            await _until(stop, stack.keep())
    finally:
        await stack.stop()


@contextmanager
def held(home: Home) -> Iterator[bool]:
    """Whether the directory's lock is ours; if so, it is for as long as the block lasts."""
    home.make()
    with home.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


async def clean_up(home: Home, *, say: Callable[[str], None]) -> None:
    """End what a killed supervisor left behind; the caller holds the lock."""
    left = {name: identity for name, identity in read_processes(home).items() if identity.pid != os.getpid()}
    # Services go first: they can finish what they hold only while the servers are there.
    for of_servers in (False, True):
        group = [identity for name, identity in left.items() if (name in {"kafka", "postgres"}) == of_servers]
        ended = await stop_strangers(group, timeout=DRAIN_SECONDS)
        if ended:
            say(f"ended what an earlier run had left: process {', '.join(map(str, ended))}")
    write_processes(home, {})
    mark_stopped(home)


@dataclass(slots=True)
class _Running:
    """One run of the stack."""

    options: Options
    say: Callable[[str], None]
    plan: Callable[..., list[ServiceProcess]]
    stack: Stack = field(default_factory=Stack)
    servers: list[Kafka | Postgres] = field(default_factory=list)
    services: list[ServiceProcess] = field(default_factory=list)
    fleet: Fleet = field(init=False)

    async def start(self) -> None:
        """Bring everything up, or raise."""
        home, options = self.options.home, self.options
        await clean_up(home, say=self.say)
        # From here on, `barnabas down` finds us.
        self._record()
        self.stack = read_stack(home)
        if not self.stack.admin_key:
            self.stack = replace(self.stack, admin_key=secrets.token_urlsafe(32))
        chosen = self._choose_ports()
        kafka, superuser_dsn = await self._start_servers(chosen)
        logins = await prepare_database(superuser_dsn, secret=self.stack.admin_key)
        topics, migrations = await _together(
            _ensure_topics(kafka, options.topic_replication), _migrate(logins.owner_dsn)
        )
        self.say(f"{topics} topics made, {migrations} migrations applied")
        await self._start_services(chosen, kafka=kafka, logins=logins)
        host = ports.LOOPBACK if options.host in {"0.0.0.0", "::"} else options.host  # noqa: S104 - compared, not bound
        api_url = f"http://{host}:{chosen[_HTTP]}"
        tenant, api_key = await ensure_demo_tenant(
            api_url=api_url,
            admin_key=self.stack.admin_key,
            known_tenant=self.stack.tenant,
            known_key=self.stack.api_key,
            suffix=secrets.token_hex(3),
        )
        self.stack = replace(
            self.stack,
            api_url=api_url,
            # One address per service: of several workers, or ingests, the first.
            ops_urls={service.kind: service.ops_url for service in reversed(self.services)},
            kafka=kafka,
            postgres=logins.owner_dsn,
            tenant=tenant,
            api_key=api_key,
        )
        write_ports(home, chosen)
        self._tell()

    async def keep(self) -> None:
        """Restart what dies, and start and stop workers where the stack scales itself, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for server in self.servers:
                group.create_task(keep(server, say=self.say, restarted=self._tell), name=f"keep_{server.name}")
            for service in self.services:
                self.fleet.keep(group, service)
            if self.options.workers_max is not None:
                ops_url = self.stack.ops_urls["retry_scheduler"]
                group.create_task(self.fleet.run(group, ops_url), name="fleet")

    async def stop(self) -> None:
        """Services first, each within its drain deadline, then Kafka, then Postgres."""
        if any(service.child for service in self.services):
            self.say("stopping the services")
            await asyncio.gather(*(service.stop() for service in self.services))
        for server in self.servers:
            if server.child is not None:
                self.say(f"stopping {server.name}")
                await server.stop()
        write_processes(self.options.home, {})
        mark_stopped(self.options.home)

    def _choose_ports(self) -> dict[str, int]:
        """A port for everything that listens: as last time where they are still free."""
        before = read_ports(self.options.home)
        if self.options.port:
            ports.require_free(self.options.port, wanted_by="ingest (HTTP)")
        chosen = {_HTTP: self.options.port} if self.options.port else {}
        for name in (_HTTP, "kafka", "postgres", *self._names()):
            if name not in chosen:
                chosen[name] = ports.free_port(keep=before.get(name, 0), avoid=frozenset(chosen.values()))
        return chosen

    async def _start_servers(self, chosen: dict[str, int]) -> tuple[str, str]:
        """Kafka's address and the superuser's of Postgres; what isn't given is started here, both at once."""
        home, options = self.options.home, self.options
        kafka = Kafka(home.kafka, home.log("kafka"), port=chosen["kafka"], avoid_ports=frozenset(chosen.values()))
        postgres = Postgres(home.postgres, home.log("postgres"), port=chosen["postgres"])
        self.servers = [*([] if options.kafka else [kafka]), *([] if options.postgres else [postgres])]
        began = time.monotonic()
        for server in self.servers:
            rotate(server.log)
        await _together(*(server.start() for server in self.servers))
        self._record()
        if self.servers:
            names = " and ".join(server.title for server in self.servers)
            self.say(f"{names} ready after {time.monotonic() - began:.1f} s")
        return options.kafka or kafka.bootstrap, options.postgres or postgres.superuser_dsn

    async def _start_services(self, chosen: dict[str, int], *, kafka: str, logins: Logins) -> None:
        if "BARNABAS_ALLOW_PRIVATE_ENDPOINTS" not in os.environ:
            self.say("webhooks may go to loopback and private addresses here (BARNABAS_ALLOW_PRIVATE_ENDPOINTS=true)")
        options = self.options
        planned = partial(
            self.plan,
            kafka=kafka,
            logins=logins,
            http_host=options.host,
            http_port=chosen[_HTTP],
            admin_key=self.stack.admin_key,
            app=options.app,
            logs=options.home.logs,
            topic_replication=options.topic_replication,
            workers_range=None if options.workers_max is None else (options.workers, options.workers_max),
        )
        self.services = planned(ops_ports={name: chosen[name] for name in self._names()})
        self.fleet = Fleet(
            services=self.services,
            least=options.workers,
            most=options.workers if options.workers_max is None else options.workers_max,
            make=lambda name, port: planned(ops_ports={name: port})[0],
            say=self.say,
            changed=self._tell,
        )
        began = time.monotonic()
        for service in self.services:
            rotate(service.log)
            await service.start()
        self._record()
        await _together(*(service.ready(timeout=self.options.ready_seconds) for service in self.services))
        self.say(f"{', '.join(service.name for service in self.services)} ready after {time.monotonic() - began:.1f} s")

    def _names(self) -> list[str]:
        return service_names(workers=self.options.workers, ingest=self.options.ingest)

    def _scaling(self) -> dict[str, int | str]:
        if self.options.workers_max is None:
            return {}
        fleet = self.fleet
        told: dict[str, int | str] = {"min": fleet.least, "max": fleet.most, "running": len(fleet.workers)}
        if fleet.advice is not None:
            told |= {"desired": fleet.advice.desired, "reason": fleet.advice.reason}
        return told

    def _kept(self) -> list[Kept]:
        return [*self.servers, *self.services]

    def _record(self) -> None:
        """Write down what runs, so that somebody can end it if we can't."""
        me = Identity(os.getpid(), psutil.Process().create_time())
        children = {kept.name: kept.child.identity for kept in self._kept() if kept.child is not None}
        write_processes(self.options.home, {SUPERVISOR: me, **children})

    def _tell(self) -> None:
        """Write `stack.json` anew: at the start, and whenever a process has another id."""
        self._record()
        # The same spelling as in `ops_urls`.
        pids = {name.replace("-", "_"): i.pid for name, i in read_processes(self.options.home).items()}
        urls = {service.name.replace("-", "_"): service.ops_url for service in self.services}
        self.stack = replace(self.stack, pids=pids, process_urls=urls, scaling=self._scaling())
        write_stack(self.options.home, self.stack)


async def _ensure_topics(kafka: str, replication: int) -> int:
    # Imported late, as below: `barnabas down` and `status` come through this module and need neither.
    from barnabas.kafka.admin import ensure_topics

    return len(await ensure_topics(kafka, replication_factor=replication))


async def _migrate(owner_dsn: str) -> int:
    from barnabas.postgres.migrate import migrate

    return len(await migrate(owner_dsn))


async def _together(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run the steps at once; the first failure cancels the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step) for step in steps]
    except BaseExceptionGroup as failures:
        known, _ = failures.split(BarnabasError)
        raise (known or failures).exceptions[0] from None
    return [task.result() for task in tasks]


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` came to its end before the stop did; if not, it is cancelled."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, stopping):
            task.cancel()
            with suppress(asyncio.CancelledError, BarnabasError):
                await task
