"""Who this process is to the database: a worker id with a lease, and a new one when the lease is lost."""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog

from barnabas.domain.ids import Uuid7Source
from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.heartbeat import Heartbeat
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_worker.settings import WorkerSettings

log = structlog.get_logger(__name__)

CancelRequests = list[tuple[UUID, int]]


class Identity:
    """The current worker id. Claims are made only while it is alive."""

    def __init__(self, settings: WorkerSettings, ids: Uuid7Source, *, type_ids: Sequence[int]) -> None:
        self._settings = settings
        self._ids = ids
        self._type_ids = type_ids
        self._heartbeat: Heartbeat | None = None
        self._lost = asyncio.Event()
        self.worker_id = ids.mint()
        self.alive = False

    def lose(self) -> None:
        """The lease is over: whoever notices first says so."""
        if self.alive:
            self.alive = False
            self._lost.set()

    async def keep(
        self,
        stop: Stop,
        *,
        on_alive: Callable[[], None],
        on_lost: Callable[[], None],
        on_cancel: Callable[[CancelRequests], None],
        stall_seconds: Callable[[], float],
    ) -> None:
        """Hold a lease until the stop; `on_lost` is called before a new id is taken."""
        failures = 0
        while not stop.is_set():
            heartbeat = Heartbeat(
                self._settings.postgres.get_secret_value(),
                worker_id=self.worker_id,
                service="worker",
                slots=self._settings.slots,
                type_ids=self._type_ids,
                lease_seconds=self._settings.lease_seconds,
                on_lost=self.lose,
                on_cancel=on_cancel,
                main_loop=asyncio.get_running_loop(),
                stall_seconds=stall_seconds,
            )
            try:
                await heartbeat.start()
            except DatabaseUnavailableError as error:
                failures += 1
                log.warning("lease_not_begun", reason=str(error))
                await stop.wait(retry_pause(0.5, failures, jitter=0.5))
                continue
            failures = 0
            self._heartbeat = heartbeat
            self._lost.clear()
            self.alive = True
            on_alive()
            log.info("lease_begun", worker_id=str(self.worker_id))
            await self._until_lost_or(stop)
            if stop.is_set():
                return
            await heartbeat.stop(delete_row=False)
            on_lost()
            self.worker_id = self._ids.mint()

    async def end(self, *, holds_nothing: bool) -> None:
        """Stop renewing, as the last thing of the drain; a row that still stands for jobs is left to the reaper."""
        self.alive = False
        if self._heartbeat is not None:
            await self._heartbeat.stop(delete_row=holds_nothing)

    async def _until_lost_or(self, stop: Stop) -> None:
        # The stop is looked at now and then; a lost lease is what has to be noticed at once.
        while not stop.is_set():
            try:
                async with asyncio.timeout(0.2):
                    await self._lost.wait()
            except TimeoutError:
                continue
            return
