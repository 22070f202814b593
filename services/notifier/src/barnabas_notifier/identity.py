"""Who this process is to the database: a worker id with a lease, and a new one when the lease is lost."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import structlog

from barnabas.domain.ids import Uuid7Source
from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.heartbeat import Heartbeat
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_notifier.settings import NotifierSettings

log = structlog.get_logger(__name__)

# Nothing on the notifier's loop takes long: a loop that stands still for a minute won't turn again.
_STALL_SECONDS = 60.0
_LOOK_SECONDS = 0.5


class Identity:
    """The current worker id. Claims are made only while it is alive."""

    def __init__(self, settings: NotifierSettings, ids: Uuid7Source) -> None:
        self._settings = settings
        self._ids = ids
        self._heartbeat: Heartbeat | None = None
        self._lost = asyncio.Event()
        self._begun = asyncio.Event()
        self.worker_id = ids.mint()
        self.alive = False

    async def wait_alive(self, timeout: float) -> bool:
        """Wait for a lease; false when there was none in time."""
        try:
            async with asyncio.timeout(timeout):
                await self._begun.wait()
        except TimeoutError:
            return False
        return self.alive

    def lose(self) -> None:
        """The lease is over: whoever notices first says so."""
        if self.alive:
            self.alive = False
            self._begun.clear()
            self._lost.set()

    async def begin(self) -> None:
        """Take a lease under the current id; raises `DatabaseUnavailableError`."""
        heartbeat = Heartbeat(
            self._settings.postgres.get_secret_value(),
            worker_id=self.worker_id,
            service="notifier",
            slots=self._settings.calls,
            type_ids=(),
            lease_seconds=self._settings.lease_seconds,
            on_lost=self._lost_by(self.worker_id),
            on_cancel=lambda _: None,
            main_loop=asyncio.get_running_loop(),
            stall_seconds=lambda: _STALL_SECONDS,
        )
        await heartbeat.start()
        self._heartbeat = heartbeat
        self._lost.clear()
        self.alive = True
        self._begun.set()
        log.info("lease_begun", worker_id=str(self.worker_id))

    async def keep(self, stop: Stop, *, on_lost: Callable[[], None]) -> None:
        """Hold a lease until the stop; `on_lost` is called at once, before a new id is taken."""
        failures = 0
        while not stop.is_set():
            try:
                await self.begin()
            except DatabaseUnavailableError as error:
                failures += 1
                log.warning("lease_not_begun", reason=str(error))
                await stop.wait(retry_pause(0.5, failures, jitter=0.5))
                continue
            failures = 0
            await self._until_lost_or(stop)
            if stop.is_set():
                return
            on_lost()
            assert self._heartbeat is not None
            await self._heartbeat.stop(delete_row=False)
            self.worker_id = self._ids.mint()

    async def end(self, *, holds_nothing: bool) -> None:
        """Stop renewing, as the last thing of the drain; a row that still stands for deliveries is the reaper's."""
        self.alive = False
        self._begun.clear()
        if self._heartbeat is not None:
            await self._heartbeat.stop(delete_row=holds_nothing)

    def _lost_by(self, worker_id: UUID) -> Callable[[], None]:
        def lose() -> None:
            # A word from an earlier id's heartbeat says nothing about this one's lease.
            if self.worker_id == worker_id:
                self.lose()

        return lose

    async def _until_lost_or(self, stop: Stop) -> None:
        # The stop is asked for every half second rather than raced: a lost lease is what has to be noticed at once.
        while not stop.is_set():
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._lost.wait()
                return
            except TimeoutError:
                continue
