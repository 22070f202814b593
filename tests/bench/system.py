"""The system under measurement: tenants to load it with, counters to read, generators to start."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import msgspec

from tests.bench.ended import EndedJobs
from tests.bench.load_http import HttpOrder, HttpSeen
from tests.bench.load_kafka import KafkaOrder, KafkaSeen
from tests.support.eventually import eventually
from tests.support.stack import Stack

T = TypeVar("T")

# A generator that hangs must not hang the benchmark.
_GENERATOR_SECONDS = 90.0
_DRAIN_SECONDS = 90.0


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
    job_type: str
    """The handler that latencies are measured with: `stamp`, or `echo` where the worker has no app."""

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

    async def drained(self, tenants: Sequence[Tenant], jobs: int, *, since: int) -> float:
        """Wait until that many jobs have ended, in Postgres and on the results topic; how long it took.

        Fails when they don't in time, or when the two don't agree.
        """
        begin = time.monotonic()
        await eventually(
            lambda: asyncio.to_thread(self.ended.count),
            until=lambda count: count - since >= jobs,
            timeout=_DRAIN_SECONDS,
        )
        took = time.monotonic() - begin
        rows = await self.rows(tenants)
        events = await asyncio.to_thread(self.ended.count) - since
        assert rows == events == jobs, f"{jobs} jobs accepted, {rows} succeeded in Postgres, {events} events published"
        return took

    async def run_http(self, order: HttpOrder) -> HttpSeen:
        """Start a generator and wait for it."""
        return await self.generate("tests.bench.load_http", order, HttpSeen)

    async def run_kafka(self, order: KafkaOrder) -> KafkaSeen:
        """Start a generator and wait for it."""
        return await self.generate("tests.bench.load_kafka", order, KafkaSeen)

    async def generate(self, module: str, order: msgspec.Struct, kind: type[T]) -> T:
        """Run a module with an order on its stdin; its answer. Fails when it does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(_GENERATOR_SECONDS):
                output, _ = await process.communicate(msgspec.json.encode(order))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"{module} ended with {process.returncode}"
        return msgspec.json.decode(output, type=kind)

    async def _accepted(self) -> int:
        text = (await self.http.get(f"{self.stack.told['ops_urls']['ingest']}/metrics")).text
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in text.splitlines()
            if line.startswith("barnabas_submissions_total{") and 'outcome="accepted"' in line
        )


@asynccontextmanager
async def open_system(stack: Stack, *, job_type: str) -> AsyncIterator[System]:
    """The instruments for a running stack."""
    async with stack.database() as database, httpx.AsyncClient(trust_env=False) as http:
        yield System(stack, database, EndedJobs(stack.told["kafka"]), http, job_type)
