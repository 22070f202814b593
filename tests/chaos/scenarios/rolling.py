"""A running system whose programs are of two releases: each gets its successor beside it, and is then told to stop.

No supervisor keeps them, as none of one release could keep both. What ends by itself stays ended, and is counted. To
others it looks like any stack: it has a `stack.json`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import lt
from pathlib import Path

from barnabas_local import ports, stack_file
from barnabas_local.database import DATABASE, prepare_database
from barnabas_local.kafka import Kafka
from barnabas_local.paths import Home
from barnabas_local.postgres import Postgres
from barnabas_local.services import ServiceProcess, plan_services
from tests.chaos.scenarios.instruments import APP, metric
from tests.chaos.scenarios.releases import Release
from tests.support.eventually import eventually
from tests.support.servers import small_servers
from tests.support.stack import Stack, barnabas, show_troubles

KINDS = ("worker", "ingest", "notifier", "retry-scheduler")
"""In the order in which they are replaced: what runs jobs is of another release first than what accepts and tells."""

_READY_SECONDS = 180.0
_WORK_SECONDS = 120.0
# That of which each kind does something all the time, under a load that has a bit of everything.
_WORK = {
    "worker": "barnabas_attempts_total",
    "ingest": "barnabas_submissions_total",
    "notifier": "barnabas_delivery_attempts_total",
    "retry-scheduler": "barnabas_retry_lateness_seconds_count",
}


@dataclass(frozen=True, slots=True)
class Program:
    """A process of one release."""

    kind: str
    release: Release
    service: ServiceProcess

    @property
    def pid(self) -> int:
        assert self.service.child is not None
        return self.service.child.pid

    async def work(self) -> float:
        """How much it has done."""
        return await metric(self.service.ops_url, _WORK[self.kind])


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended."""

    name: str
    code: int
    by_itself: bool


@dataclass(slots=True)
class Rollout:
    """A system between two releases. Made by `open_rollout`."""

    stack: Stack
    kafka: str
    superuser_dsn: str
    database_dsn: str
    """The product's database, with a login that may do everything."""
    together_seconds: float
    """How long a program and its successor go on beside each other once both work."""
    planned: Mapping[str, ServiceProcess]
    told: stack_file.Stack
    programs: list[Program] = field(default_factory=list)
    """Those that run, oldest first."""
    endings: list[Ending] = field(default_factory=list)
    together: float = 0.0
    """Seconds for which two releases of one kind have worked beside each other, summed over the kinds."""
    _starts: int = 0

    @property
    def errors(self) -> list[str]:
        """What the programs' logs have of errors, by name: someone should look at each."""
        logs = sorted((self.stack.directory / "logs").glob("*.log"))
        return [
            f"{log.stem}: {line}"
            for log in logs
            for line in log.read_text(errors="replace").splitlines()
            if '"level":"error"' in line
        ]

    async def setup(self, release: Release) -> list[str]:
        """What the compose stack's `setup` does with every start of a release; the migrations that it applied."""
        env = dict(release.env) | {"BARNABAS_POSTGRES": self.superuser_dsn, "BARNABAS_KAFKA": self.kafka}
        said = await barnabas("migrate", "--prepare", env=env, python=release.python)
        await barnabas("topics", env=env, python=release.python)
        return [line.removeprefix("applied ") for line in said.splitlines() if line.startswith("applied ")]

    async def start(self, kind: str, release: Release, env: Mapping[str, str] | None = None) -> Program:
        """One more program of a kind, once it is ready."""
        self._starts += 1
        planned, name = self.planned[kind], f"{kind}-{release.name}-{self._starts}"
        port = ports.free_port(avoid=frozenset(program.service.ops_port for program in self.programs))
        service = replace(
            planned,
            name=name,
            argv=(str(release.python), *planned.argv[1:]),
            env={**planned.env, **release.env, "BARNABAS_OPS_PORT": str(port), **(env or {})},
            ops_port=port,
            log=planned.log.with_name(f"{name}.log"),
        )
        await service.start()
        program = Program(kind, release, service)
        self.programs.append(program)
        self._tell()
        await service.ready(timeout=_READY_SECONDS)
        assert release.runs_as(program.pid), f"{name} is of another release"
        return program

    async def one_by_one(self, kinds: Sequence[str], to: Release) -> None:
        """Replace a kind, then the next: in between there is every mixture."""
        for kind in kinds:
            before = self._of_kind(kind)
            await self._beside([*before, await self.start(kind, to)])
            for program in before:
                await self.stop(program)

    async def side_by_side(self, kinds: Sequence[str], to: Release) -> None:
        """Both releases of every kind, and only then the end of the others, one after the other."""
        before = [program for kind in kinds for program in self._of_kind(kind)]
        await self._beside([*before, *[await self.start(kind, to) for kind in kinds]])
        for program in before:
            await self.stop(program)

    async def stop(self, program: Program) -> None:
        """Tell it to end, and see how it does."""
        child = program.service.child
        assert child is not None
        by_itself = child.exit_code() is not None
        await program.service.stop()
        self.programs.remove(program)
        self.endings.append(Ending(program.service.name, child.handle.returncode, by_itself))
        self._tell()

    async def _beside(self, programs: Sequence[Program]) -> None:
        """Let them go on together, once each has been seen to work beside the others."""
        begin = time.monotonic()
        done = [await program.work() for program in programs]
        for program, before in zip(programs, done, strict=True):
            try:
                await eventually(program.work, until=partial(lt, before), timeout=_WORK_SECONDS)
            except AssertionError as failure:
                raise AssertionError(f"{program.service.name} has had nothing to do beside the others") from failure
        await asyncio.sleep(self.together_seconds)
        self.together += (time.monotonic() - begin) * len({program.kind for program in programs})

    def _of_kind(self, kind: str) -> list[Program]:
        return [program for program in self.programs if program.kind == kind]

    def _tell(self) -> None:
        # Of two of a kind, the newer one.
        told = replace(
            self.told,
            pids={program.kind.replace("-", "_"): program.pid for program in self.programs},
            process_urls={program.kind.replace("-", "_"): program.service.ops_url for program in self.programs},
        )
        stack_file.write_stack(Home(self.stack.directory), told)


@asynccontextmanager
async def open_rollout(directory: Path, release: Release, *, together_seconds: float) -> AsyncIterator[Rollout]:
    """A system of one release on servers of its own below `directory`; everything is stopped at the end."""
    kafka, postgres = small_servers(directory)
    try:
        await asyncio.gather(kafka.start(), postgres.start())
        rollout = await _planned(directory, kafka, postgres, together_seconds)
        try:
            await rollout.setup(release)
            for kind in KINDS:
                await rollout.start(kind, release)
            yield rollout
        finally:
            show_troubles(directory)
            await asyncio.gather(*(program.service.stop() for program in rollout.programs))
    finally:
        await kafka.stop(at_once=True)
        await postgres.stop(at_once=True)


async def _planned(directory: Path, kafka: Kafka, postgres: Postgres, together_seconds: float) -> Rollout:
    logins = await prepare_database(postgres.superuser_dsn)
    admin_key, port = secrets.token_urlsafe(32), ports.free_port()
    (directory / "logs").mkdir()
    # A second ingest is one of several: they share the address.
    names = {"ingest-2": "ingest"} | {kind: kind for kind in KINDS if kind != "ingest"}
    services = plan_services(
        kafka=kafka.bootstrap,
        logins=logins,
        http_host=ports.LOOPBACK,
        http_port=port,
        # Each program gets a port of its own when it starts.
        ops_ports=dict.fromkeys(names, 0),
        admin_key=admin_key,
        app=APP,
        logs=directory / "logs",
    )
    return Rollout(
        stack=Stack(directory),
        kafka=kafka.bootstrap,
        superuser_dsn=postgres.superuser_dsn,
        database_dsn=f"{postgres.superuser_dsn.rpartition('/')[0]}/{DATABASE}",
        together_seconds=together_seconds,
        planned={names[service.name]: service for service in services},
        told=stack_file.Stack(
            api_url=f"http://{ports.LOOPBACK}:{port}",
            kafka=kafka.bootstrap,
            admin_key=admin_key,
        ),
    )
