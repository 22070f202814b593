"""A small world for tests of one service: a database of its own, Kafka, tenants, jobs, and what became of them."""

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from barnabas.contract.telling import job_record
from barnabas.contract.topics import DEFAULT_QUEUE
from barnabas.domain.ids import uuid7
from barnabas.domain.jobs import JobState
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import ensure_topics
from barnabas.kafka.producer import Producer
from barnabas.kafka.routes import Routes
from barnabas.postgres.database import Database, open_database
from barnabas.postgres.dictionaries import Dictionary, job_types
from barnabas.postgres.jobs import StoredJob, read_jobs
from barnabas.postgres.queues import Queues
from barnabas.postgres.submissions import Submission, accept_jobs
from barnabas_local.database import Logins
from tests.support.eventually import at_last, eventually
from tests.support.servers import Servers


def new_id() -> UUID:
    """A UUIDv7 of now."""
    return uuid7(int(time.time() * 1000), os.urandom(10))


@dataclass(frozen=True, slots=True)
class World:
    """What a test of a service needs around it."""

    kafka: str
    logins: Logins
    engine: Database
    superuser: Any
    """A connection that sees everything: for assertions only."""
    producer: Producer
    types: Dictionary
    queues: Queues

    async def tenant(self, *, running_at_most: int | None = None) -> UUID:
        """A new tenant, with a gate if it has a limit."""
        tenant_id = new_id()
        await self.superuser.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, $2)", tenant_id, str(tenant_id))
        if running_at_most is not None:
            await self.superuser.execute(
                "INSERT INTO gates (tenant_id, kind, allowed) VALUES ($1, 1, $2)", tenant_id, running_at_most
            )
        return tenant_id

    async def type_id(self, name: str) -> int:
        """The number of a job type."""
        return (await self.types.ids([name]))[name]

    async def queue(self, name: str) -> int:
        """The number of a queue; its topics are the test's to make."""

        async def none(_name: str) -> None:
            pass

        return await self.queues.make(name, queues_max=1_000, make_topics=none)

    async def insert(
        self, tenant_id: UUID, job_type: str = "echo", payload: bytes = b"{}", *, count: int = 1, **fields: Any
    ) -> list[UUID]:
        """Accepted jobs that Kafka hasn't been told of; their outbox row is left behind."""
        type_id = await self.type_id(job_type)
        fields["queue_id"] = await self.queue(fields.pop("queue", DEFAULT_QUEUE))
        jobs = [_submission(tenant_id, type_id, payload, **fields) for _ in range(count)]
        async with self.engine.session() as session:
            await accept_jobs(session, jobs, told=())
        return sorted(job.job_id for job in jobs)

    async def publish(
        self, tenant_id: UUID, job_ids: Sequence[UUID], *, priority: int = 1, queue: str = DEFAULT_QUEUE, times: int = 1
    ) -> None:
        """Records for these jobs, as their writer would send them."""
        await self.queues.read()
        queue_id = self.queues.id_of(queue)
        assert queue_id is not None, f"{queue} was not made"
        records = [job_record(tenant_id, job_id, 0, priority, queue_id) for job_id in job_ids] * times
        for topic, group in Routes(self.queues.name_of).by_topic(records).items():
            await self.producer.send(topic, group)

    async def submit(
        self, tenant_id: UUID, job_type: str = "echo", payload: bytes = b"{}", *, count: int = 1, **fields: Any
    ) -> list[UUID]:
        """Accepted jobs whose records are in Kafka, as after an ingest that has done its work."""
        job_ids = await self.insert(tenant_id, job_type, payload, count=count, **fields)
        if fields.get("run_at") is None:
            where = {name: fields[name] for name in ("priority", "queue") if name in fields}
            await self.publish(tenant_id, job_ids, **where)
        await self.superuser.execute("DELETE FROM outbox WHERE ref_ids && $1", job_ids)
        return job_ids

    async def worker(self, *job_types: str, lease_seconds: float = 600.0, slots: int = 100) -> UUID:
        """A worker id with a lease, for tests that speak for a worker themselves."""
        worker_id = new_id()
        numbers = [await self.type_id(name) for name in job_types]
        await self.engine.execute(
            "insert_worker", worker_id, "worker", "here", 1, slots, numbers, timedelta(seconds=lease_seconds), [0]
        )
        return worker_id

    async def job(self, tenant_id: UUID, job_id: UUID) -> StoredJob:
        """The whole job."""
        async with self.engine.session() as session:
            return (await read_jobs(session, [(tenant_id, job_id)]))[0]

    async def states(self, tenant_id: UUID) -> dict[str, int]:
        """How many jobs of a tenant are in which state."""
        rows = await self.superuser.fetch(
            "SELECT state, count(*) AS n FROM (SELECT state FROM jobs WHERE tenant_id = $1"
            " UNION ALL SELECT state FROM job_results WHERE tenant_id = $1) AS every GROUP BY state",
            tenant_id,
        )
        return {JobState(row["state"]).label: row["n"] for row in rows}

    async def until(self, tenant_id: UUID, seconds: float = 60.0, **counts: int) -> None:
        """Wait until exactly these states are left: `until(tenant, succeeded=3)`."""
        await eventually(lambda: self.states(tenant_id), until=lambda states: states == counts, timeout=seconds)

    async def now(self) -> datetime:
        """The database's time."""
        told: datetime = await self.engine.fetchval("read_clock")
        return told


@asynccontextmanager
async def open_world(servers: Servers, logins: Logins) -> AsyncIterator[World]:
    """A world on this database."""
    # The first world of a session has hundreds of partitions made, which may take a busy broker longer than one call.
    await at_last(lambda: ensure_topics(servers.kafka), refused=BrokerUnavailableError)
    superuser = await asyncpg.connect(_superuser(servers, logins))
    try:
        async with (
            open_database(logins.engine_dsn, login="engine", size_max=8) as engine,
            # What a starved machine takes for a record is no matter of these tests.
            Producer(servers.kafka, delivery_timeout_seconds=60) as producer,
        ):
            yield World(servers.kafka, logins, engine, superuser, producer, job_types(engine), Queues(engine))
    finally:
        await superuser.close()


def _submission(
    tenant_id: UUID,
    type_id: int,
    payload: bytes,
    *,
    priority: int = 1,
    queue_id: int = 0,
    run_at: datetime | None = None,
    timeout_ms: int | None = None,
    max_attempts: int | None = None,
    metadata: bytes | None = None,
    retry: bytes | None = None,
) -> Submission:
    return Submission(
        tenant_id=tenant_id,
        job_id=new_id(),
        type_id=type_id,
        priority=priority,
        queue_id=queue_id,
        timeout_ms=timeout_ms,
        max_attempts=max_attempts,
        due_at=run_at,
        payload=payload,
        metadata=metadata,
        retry=retry,
        trace=None,
    )


def _superuser(servers: Servers, logins: Logins) -> str:
    """The superuser's DSN on the test's own database."""
    return f"{servers.superuser_dsn.rsplit('/', 1)[0]}/{logins.engine_dsn.rsplit('/', 1)[1]}"
