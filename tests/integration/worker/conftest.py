"""A worker inside the test's own process, with real Kafka and real Postgres around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from barnabas.runtime.service import serve
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

    def __init__(self, settings: WorkerSettings) -> None:
        self.stop = Stop()
        self.resources: Resources | None = None
        self._settings = settings
        self._task: asyncio.Task[int] | None = None

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
            loops=SERVICE.loops,
            unready=SERVICE.unready,
        )
        self._task = asyncio.create_task(serve(service, self._settings, self.stop))
        await eventually(lambda: self.resources is not None and self.resources.identity.alive, timeout=20)

    async def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self._task is not None
        async with asyncio.timeout(30):
            return await asyncio.shield(self._task)

    async def end(self) -> int:
        """SIGTERM's effect, and the exit code."""
        assert self._task is not None
        self.stop.set()
        return await self._task


@pytest.fixture
async def start_worker(world: World) -> AsyncIterator[StartWorker]:
    """Start workers; they are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: str) -> RunningWorker:
            environment = {
                "KAFKA": world.kafka,
                "POSTGRES": world.logins.engine_dsn,
                "APP": "tests.support.handlers:app",
                "DRAIN_SECONDS": "6",
                "LOG_LEVEL": "warning",
            } | overrides
            worker = RunningWorker(
                load(WorkerSettings, {f"BARNABAS_{key}": value for key, value in environment.items()})
            )
            await worker.start()
            stack.push_async_callback(worker.end)
            return worker

        yield start
