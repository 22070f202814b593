"""A worker inside the test's own process, with real Kafka and real Postgres around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest

from barnabas.runtime.service import Loop, serve
from barnabas.runtime.settings import load
from barnabas.runtime.stop import Stop
from barnabas_worker.main import SERVICE
from barnabas_worker.resources import Resources
from barnabas_worker.settings import WorkerSettings
from tests.support.eventually import eventually
from tests.support.world import World

StartWorker = Callable[..., Awaitable["RunningWorker"]]


class RunningWorker:
    """One worker; `resources` are its own, for looking in."""

    def __init__(self, settings: WorkerSettings, *, without: Collection[Loop[Resources]] = ()) -> None:
        self.stop = Stop()
        self.resources: Resources | None = None
        self._settings = settings
        self._loops = tuple(loop for loop in SERVICE.loops if loop not in without)
        self._task: asyncio.Task[int] | None = None

    @property
    def worker_id(self) -> UUID:
        assert self.resources is not None
        return self.resources.identity.worker_id

    async def start(self) -> None:
        @asynccontextmanager
        async def watched(settings: WorkerSettings) -> AsyncIterator[Resources]:
            async with SERVICE.resources(settings) as resources:
                self.resources = resources
                yield resources

        service = type(SERVICE)(
            name=SERVICE.name,
            settings=SERVICE.settings,
            resources=watched,
            loops=self._loops,
            unready=SERVICE.unready,
        )
        self._task = asyncio.create_task(serve(service, self._settings, self.stop))
        await eventually(lambda: self.resources is not None and self.resources.identity.alive)

    async def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self._task is not None
        async with asyncio.timeout(90):
            return await asyncio.shield(self._task)

    async def end(self) -> int:
        """SIGTERM's effect, and the exit code."""
        assert self._task is not None
        self.stop.set()
        return await self._task


@pytest.fixture
async def start_worker(world: World) -> AsyncIterator[StartWorker]:
    """Start workers; they are stopped at the end. `without` names loops that a test steps itself."""
    async with AsyncExitStack() as stack:

        async def start(*, without: Collection[Loop[Resources]] = (), **overrides: str) -> RunningWorker:
            environment = {
                "KAFKA": world.kafka,
                "POSTGRES": world.logins.engine_dsn,
                "APP": "tests.support.handlers:app",
                "DRAIN_SECONDS": "6",
                # Only who looks for a lost lease may lose one because the machine stood still.
                "LEASE_SECONDS": "30",
                "LOG_LEVEL": "warning",
            } | overrides
            worker = RunningWorker(
                load(WorkerSettings, {f"BARNABAS_{key}": value for key, value in environment.items()}), without=without
            )
            stack.push_async_callback(worker.end)
            await worker.start()
            return worker

        yield start
