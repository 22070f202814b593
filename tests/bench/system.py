"""The system under measurement: tenants to load it with, counters to read, generators to start."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import msgspec

from tests.bench.ended import EndedJobs
from tests.bench.load_http import HttpOrder, HttpSeen
from tests.bench.load_kafka import KafkaOrder, KafkaSeen
from tests.bench.usage import group
from tests.support.eventually import eventually
from tests.support.stack import Stack

T = TypeVar("T")

# A generator that hangs must not hang the benchmark; one with a number of jobs to send has this on top of its own time.
_GENERATOR_SECONDS = 120.0
_DRAIN_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of those that the load is spread over."""

    id: str
    key: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the system is, at one moment."""

    at: float
    ended: int
    accepted: int


@dataclass(slots=True)
class System:
    """A running stack with what the measures need of it."""

    stack: Stack
    database: Any
    """A connection that sees every tenant."""
    ended: EndedJobs
    http: httpx.AsyncClient

    async def tenants(self, label: str, count: int) -> list[Tenant]:
        """New tenants."""
        made = [await self.stack.tenant(f"bench-{label}-{number}-{time.time_ns()}") for number in range(count)]
        return [Tenant(*each) for each in made]

    async def counts(self) -> Counts:
        """Where it is now."""
        ended, accepted = await asyncio.gather(asyncio.to_thread(self.ended.count), self._accepted())
        return Counts(time.monotonic(), ended, accepted)

    async def rows(self, tenants: Sequence[Tenant]) -> int:
        """Ended jobs of these tenants in Postgres."""
        count: int = await self.database.fetchval(
            "SELECT count(*) FROM job_results WHERE tenant_id = ANY ($1::uuid[]) AND state = 5",
            [tenant.id for tenant in tenants],
        )
        return count

    async def drained(
        self, tenants: Sequence[Tenant], jobs: int, *, since: int, rows: int = 0, seconds: float = _DRAIN_SECONDS
    ) -> float:
        """Wait until that many jobs have ended, in Postgres and on the results topic; how long it took.

        `rows` is how many of these tenants' jobs had ended before. Fails when they don't in time. An event may be told
        twice, where a writer stood still for the five seconds after which the relay takes its row for left behind.
        """
        begin = time.monotonic()
        await eventually(
            lambda: asyncio.to_thread(self.ended.count),
            until=lambda count: count - since >= jobs,
            timeout=seconds,
        )
        took = time.monotonic() - begin
        # One that was told twice, and counted here, may stand for one that has not ended yet.
        grown = await eventually(lambda: self.rows(tenants), until=lambda count: count - rows >= jobs, timeout=seconds)
        assert grown - rows == jobs, f"{jobs} jobs accepted, {grown - rows} succeeded in Postgres"
        return took

    @contextmanager
    def standing_still(self, kind: str) -> Iterator[None]:
        """The services of that kind do nothing in the block, and hold no more of the machine than memory."""
        names = [name for name in self.stack.told["pids"] if group(name) == kind]
        for name in names:
            self.stack.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self.stack.signal(name, signal.SIGCONT)

    async def run_http(self, order: HttpOrder) -> HttpSeen:
        """Start a generator and wait for it."""
        return await self.generate("tests.bench.load_http", order, HttpSeen, seconds=order.seconds)

    async def run_kafka(self, order: KafkaOrder) -> KafkaSeen:
        """Start a generator and wait for it."""
        return await self.generate("tests.bench.load_kafka", order, KafkaSeen, seconds=order.seconds)

    async def generate(self, module: str, order: msgspec.Struct, kind: type[T], *, seconds: float = 30.0) -> T:
        """Run a module with an order on its stdin; its answer. Fails when it does, or takes two minutes longer."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(seconds + _GENERATOR_SECONDS):
                output, _ = await process.communicate(msgspec.json.encode(order))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"{module} ended with {process.returncode}"
        return msgspec.json.decode(output, type=kind)

    async def metric(self, service: str, name: str, *labels: str) -> float:
        """A metric of a service's first process, summed over the children that have all of these labels."""
        text = (await self.http.get(f"{self.stack.told['ops_urls'][service]}/metrics")).text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in labels)
        )

    async def _accepted(self) -> int:
        return int(await self.metric("ingest", "barnabas_submissions_total", 'outcome="accepted"'))


@asynccontextmanager
async def open_system(stack: Stack) -> AsyncIterator[System]:
    """The instruments for a running stack whose workers have the handlers of `tests.bench.app`."""
    async with stack.database() as database, httpx.AsyncClient(trust_env=False) as http:
        yield System(stack, database, EndedJobs(stack.told["kafka"]), http)


@asynccontextmanager
async def superuser(stack: Stack, *, database: str | None = None) -> AsyncIterator[Any]:
    """A connection to the stack's own Postgres that may do everything; to the system's database, or to another."""
    connection = await asyncpg.connect(superuser_dsn(stack, database=database))
    try:
        yield connection
    finally:
        await connection.close()


def superuser_dsn(stack: Stack, *, database: str | None = None) -> str:
    """Its address."""
    told = urlsplit(str(stack.told["postgres"]))
    password = (stack.directory / "postgres" / "superuser.password").read_text().strip()
    server = told._replace(netloc=f"postgres:{password}@{told.hostname}:{told.port}")
    return urlunsplit(server if database is None else server._replace(path=f"/{database}"))
