"""Notifiers inside the test's own process, with real Kafka, real Postgres and a real receiver around them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from barnabas.contract.events import JobEvent
from barnabas.contract.telling import delivery_record, event_records
from barnabas.domain.deliveries import DeliveryState
from barnabas.domain.jobs import JobState
from barnabas.domain.signing import make_secret
from barnabas.kafka.partitions import ConsumedRecord
from barnabas.postgres.deliveries import DeliveryKey
from barnabas.postgres.outbox import read_events
from barnabas.postgres.turns import Finishing
from barnabas.runtime.service import Service, serve
from barnabas.runtime.settings import load
from barnabas.runtime.stop import Stop
from barnabas_notifier.main import SERVICE
from barnabas_notifier.resources import Resources, open_resources
from barnabas_notifier.settings import NotifierSettings
from tests.support.eventually import eventually
from tests.support.receiver import Receiver, open_receiver
from tests.support.turns import claim_jobs, finish_jobs
from tests.support.world import World, new_id


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a tenant, as its test made it."""

    tenant_id: UUID
    endpoint_id: UUID
    secret: str


@dataclass(frozen=True, slots=True)
class Post:
    """The world around a notifier: tenants with endpoints, ended jobs, and what became of their deliveries."""

    world: World
    receiver: Receiver

    async def endpoint(
        self,
        tenant_id: UUID,
        url: str,
        *,
        schedule: Sequence[float] | None = None,
        event_types: Sequence[str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Endpoint:
        """A new endpoint with one secret."""
        endpoint_id, secret = new_id(), make_secret(os.urandom(32))
        await self.world.superuser.execute(
            "INSERT INTO endpoints (tenant_id, endpoint_id, url, event_types, retry_schedule_seconds, headers)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            tenant_id,
            endpoint_id,
            url,
            event_types,
            schedule,
            json.dumps(headers) if headers else None,
        )
        await self.add_secret(tenant_id, endpoint_id, secret)
        return Endpoint(tenant_id, endpoint_id, secret)

    async def add_secret(self, tenant_id: UUID, endpoint_id: UUID, secret: str) -> None:
        await self.world.superuser.execute(
            "INSERT INTO endpoint_secrets (tenant_id, endpoint_id, secret_id, secret) VALUES ($1, $2, $3, $4)",
            tenant_id,
            endpoint_id,
            new_id(),
            secret,
        )

    async def ended_jobs(
        self, tenant_id: UUID, count: int = 1, *, state: JobState = JobState.SUCCEEDED, result: bytes = b'{"score": 7}'
    ) -> list[JobEvent]:
        """Jobs that ran and ended, as a worker would have left them."""
        world = self.world
        job_ids = await world.insert(tenant_id, count=count)
        worker_id, type_id = await world.worker("echo"), await world.type_id("echo")
        async with world.engine.transaction() as session:
            claims = await claim_jobs(
                session, worker_id, new_id(), [(tenant_id, job) for job in job_ids], {type_id: 60_000}
            )
            finishing = [Finishing(tenant_id, job.job_id, job.fence, state, new_id(), result) for job in claims.claimed]
            await finish_jobs(session, worker_id, finishing)
            events = await read_events(session, [tenant_id] * count, job_ids)
        return sorted(events, key=lambda event: event.id)

    async def announce(self, events: Sequence[JobEvent]) -> None:
        """Put the events into Kafka, as their worker would have."""
        records = [event_records(event)[0] for event in events]
        await self.world.producer.send(records[0].topic, [(each.key, each.value, each.headers) for each in records])

    async def bring_back(self, row: Any) -> None:
        """Put a delivery into `deliveries.retry`, as the retry-scheduler does when it is due."""
        topic, key, value = delivery_record(row["tenant_id"], row["event_id"], row["endpoint_id"], row["fence"])
        await self.world.producer.send(topic, [(key, value, None)])

    async def deliveries(self, tenant_id: UUID) -> list[Any]:
        """A tenant's delivery rows, oldest event first."""
        rows: list[Any] = await self.world.superuser.fetch(
            "SELECT * FROM deliveries WHERE tenant_id = $1 ORDER BY event_id, endpoint_id", tenant_id
        )
        return rows

    async def attempts(self, tenant_id: UUID) -> list[Any]:
        """A tenant's calls, in order."""
        rows: list[Any] = await self.world.superuser.fetch(
            "SELECT * FROM delivery_attempts WHERE tenant_id = $1 ORDER BY started_at", tenant_id
        )
        return rows

    async def states(self, tenant_id: UUID) -> dict[str, int]:
        """How many deliveries of a tenant are in which state."""
        counts: dict[str, int] = {}
        for row in await self.deliveries(tenant_id):
            label = DeliveryState(row["state"]).label
            counts[label] = counts.get(label, 0) + 1
        return counts

    async def until(self, tenant_id: UUID, seconds: float = 60.0, **counts: int) -> list[Any]:
        """Wait until a tenant's deliveries are in exactly these states; the rows."""
        await eventually(lambda: self.states(tenant_id), until=lambda states: states == counts, timeout=seconds)
        return await self.deliveries(tenant_id)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook receiver of one's own."""
    async with open_receiver() as opened:
        yield opened


@pytest.fixture
async def post(world: World, receiver: Receiver) -> Post:
    """The world around a notifier."""
    return Post(world, receiver)


class RunningNotifier:
    """One notifier; `resources` are its own, for looking in."""

    def __init__(self, settings: NotifierSettings) -> None:
        self.stop = Stop()
        self._settings = settings
        self._opened: asyncio.Future[Resources] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[int] | None = None

    @property
    def resources(self) -> Resources:
        return self._opened.result()

    @property
    def worker_id(self) -> UUID:
        return self.resources.identity.worker_id

    async def start(self) -> None:
        @asynccontextmanager
        async def watched(settings: NotifierSettings) -> AsyncIterator[Resources]:
            async with open_resources(settings) as resources:
                self._opened.set_result(resources)
                yield resources

        service: Service[NotifierSettings, Resources] = Service(
            name=SERVICE.name,
            settings=SERVICE.settings,
            resources=watched,
            loops=SERVICE.loops,
            unready=SERVICE.unready,
        )
        self._task = asyncio.create_task(serve(service, self._settings, self.stop))
        await eventually(lambda: self._opened.done() and self.resources.identity.alive)

    async def end(self) -> int:
        """SIGTERM's effect, and the exit code."""
        assert self._task is not None
        self.stop.set()
        return await self._task


StartNotifier = Callable[..., Awaitable[RunningNotifier]]


def settings_of(world: World, **overrides: str) -> NotifierSettings:
    environment = {
        "KAFKA": world.kafka,
        "POSTGRES": world.logins.engine_dsn,
        "ALLOW_PRIVATE_ENDPOINTS": "true",
        # Only who looks for a deadline or a lost lease may meet one because the machine stood still.
        "CALL_SECONDS": "120",
        "LEASE_SECONDS": "30",
        "DRAIN_SECONDS": "6",
        "LOG_LEVEL": "warning",
    } | overrides
    return load(NotifierSettings, {f"BARNABAS_{key}": value for key, value in environment.items()})


@pytest.fixture
async def start_notifier(world: World) -> AsyncIterator[StartNotifier]:
    """Start notifiers; they are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: str) -> RunningNotifier:
            notifier = RunningNotifier(settings_of(world, **overrides))
            stack.push_async_callback(notifier.end)
            await notifier.start()
            return notifier

        yield start


@asynccontextmanager
async def idle_notifier(world: World, **overrides: str) -> AsyncIterator[Resources]:
    """A notifier with a lease whose loops don't run: a test calls their steps itself."""
    async with open_resources(settings_of(world, **overrides)) as resources:
        await resources.identity.begin()
        try:
            yield resources
        finally:
            await resources.identity.end(holds_nothing=False)


def records_of(events: Sequence[JobEvent]) -> list[ConsumedRecord]:
    """The events as a consumer hands them out."""
    told = [event_records(event)[0] for event in events]
    return [ConsumedRecord(each.topic, 0, offset, each.key, each.value, (), 0, 1) for offset, each in enumerate(told)]


def key_of(row: Any) -> DeliveryKey:
    return DeliveryKey(row["tenant_id"], row["event_id"], row["endpoint_id"])
