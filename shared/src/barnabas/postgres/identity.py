"""Who a process is to the database: a worker id with a lease, and a new one when the lease is lost.

For every process that holds rows under a lease: worker and notifier. A lost id is never used again.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog

from barnabas.domain.ids import Uuid7Source
from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.heartbeat import Heartbeat
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop

log = structlog.get_logger(__name__)

CancelRequests = list[tuple[UUID, int]]
"""Job ids and fences of running jobs that were asked to end."""


def _no_news(_revision: int, _has_backlog: bool) -> None:
    """For who shares nothing that is set by weights, and fetches no backlog."""


class Identity:
    """The current worker id. Claims are made only while it is alive."""

    def __init__(
        self,
        dsn: str,
        *,
        service: str,
        slots: int,
        type_ids: Sequence[int],
        queue_ids: Sequence[int] = (),
        lease_seconds: float,
        ids: Uuid7Source,
        on_cancel: Callable[[CancelRequests], None],
        holds: Callable[[], bool],
        on_news: Callable[[int, bool], None] = _no_news,
        stall_seconds: Callable[[], float],
    ) -> None:
        """The callables are as for `Heartbeat`; the rest is what its row announces."""
        self._dsn = dsn
        self._announced = (service, slots, tuple(type_ids), tuple(queue_ids))
        self._lease_seconds = lease_seconds
        self._on_cancel = on_cancel
        self._on_news = on_news
        self._holds = holds
        self._stall_seconds = stall_seconds
        self._ids = ids
        self._heartbeat: Heartbeat | None = None
        self._lost = asyncio.Event()
        self._begun = asyncio.Event()
        self.worker_id = ids.mint()
        self.alive = False
        self._lost_at: float | None = None

    @property
    def away_seconds(self) -> float:
        """How long there has been no lease; 0.0 while there is one, and before the first."""
        if self.alive or self._lost_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._lost_at

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
            self._lost_at = asyncio.get_running_loop().time()
            self._begun.clear()
            self._lost.set()

    async def begin(self) -> None:
        """Take a lease under the current id; raises `DatabaseUnavailableError`."""
        service, slots, type_ids, queue_ids = self._announced
        heartbeat = Heartbeat(
            self._dsn,
            worker_id=self.worker_id,
            service=service,
            slots=slots,
            type_ids=type_ids,
            queue_ids=queue_ids,
            lease_seconds=self._lease_seconds,
            on_lost=self._lost_by(self.worker_id),
            on_cancel=self._on_cancel,
            on_news=self._on_news,
            holds=self._holds,
            main_loop=asyncio.get_running_loop(),
            stall_seconds=self._stall_seconds,
        )
        await heartbeat.start()
        self._heartbeat = heartbeat
        self._lost.clear()
        self.alive = True
        self._begun.set()
        log.info("lease_begun", worker_id=str(self.worker_id))

    async def keep(
        self, stop: Stop, *, on_lost: Callable[[], None], on_alive: Callable[[], None] = lambda: None
    ) -> None:
        """Hold a lease until the stop; `on_lost` is called before a new id is taken, `on_alive` when it lives."""
        failures = 0
        while not stop.is_set():
            try:
                await self.begin()
            except DatabaseUnavailableError as error:
                failures += 1
                log.warning("lease_not_begun", reason=str(error))
                await stop.wait(retry_pause(0.5, failures, jitter=random.random()))
                continue
            failures = 0
            on_alive()
            await self._until_lost_or(stop)
            if stop.is_set():
                return
            on_lost()
            assert self._heartbeat is not None
            await self._heartbeat.stop(delete_row=False)
            self.worker_id = self._ids.mint()

    async def end(self, *, holds_nothing: bool) -> None:
        """Stop renewing, as the last thing of the drain; a row that still stands for something is the reaper's."""
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
        stop.on_set(self._lost.set)
        await self._lost.wait()
