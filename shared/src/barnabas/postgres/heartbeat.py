"""The heartbeat of a process that holds jobs or deliveries: its row in `workers`, renewed from a thread of its own.

Own thread, own loop, own connection: a handler that blocks the main loop must not cost every lease of the process. It
promises `on_lost` at most once and never later than the database may have given the lease to somebody else.
"""

import asyncio
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from barnabas.errors import DatabaseUnavailableError, TransientError
from barnabas.postgres.connecting import connect
from barnabas.postgres.database import Session, translated
from barnabas.runtime.crash_points import CrashPoint, reach

log = structlog.get_logger(__name__)

EXIT_STALLED = 70
"""The process' exit code when its main loop stood still: EX_SOFTWARE of sysexits.h."""

# A cancel has to reach a running handler within a second, and an end of a backlog its workers.
_RENEW_SECONDS = 1.0
# Who holds nothing has nothing to hear: it renews just often enough to keep the lease through two failures.
_RENEWALS_A_LEASE = 3.0
# The end is announced this share of a lease early, so that what runs can be cancelled while the lease still holds.
_MARGIN_SHARE = 0.1
_CONNECT_SECONDS = 5.0
# This thread's own silence: longer, and the whole process was frozen, which says nothing about the main loop.
_FROZEN_SECONDS = 15.0
_STOP_SECONDS = 10.0


class Heartbeat:
    """One worker id's lease. A process that lost it makes another `Heartbeat` under a new id.

    `slots`, `type_ids` and `queue_ids` are what the row announces. `on_lost`, `on_cancel` (job id and fence of
    running jobs whose cancel was asked for) and `on_news` (the revision of what is shared, and whether there is a
    backlog: at first, and when either has changed) are called on `main_loop`. `holds` and `stall_seconds` are
    called on the heartbeat's thread and may only read plain fields: while something is held, or there is a backlog,
    the row is renewed each second, else three times a lease; when the main loop hasn't turned for longer than
    `stall_seconds()`, the process ends at once.
    """

    def __init__(
        self,
        dsn: str,
        *,
        worker_id: UUID,
        service: str,
        slots: int,
        type_ids: Sequence[int],
        queue_ids: Sequence[int] = (),
        lease_seconds: float,
        on_lost: Callable[[], None],
        on_cancel: Callable[[list[tuple[UUID, int]]], None],
        on_news: Callable[[int, bool], None],
        holds: Callable[[], bool],
        main_loop: asyncio.AbstractEventLoop,
        stall_seconds: Callable[[], float],
    ) -> None:
        self.worker_id = worker_id
        self._dsn = dsn
        self._row = (worker_id, service, socket.gethostname(), os.getpid(), slots, list(type_ids))
        self._queue_ids = list(queue_ids)
        self._lease = timedelta(seconds=lease_seconds)
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._on_news = on_news
        self._holds = holds
        self._main_loop = main_loop
        self._stall_seconds = stall_seconds
        self._renew_idle_seconds = lease_seconds / _RENEWALS_A_LEASE
        self._look_seconds = min(_RENEW_SECONDS, self._renew_idle_seconds)
        self._patience_seconds = lease_seconds * (1.0 - _MARGIN_SHARE)
        self._connection: Any = None
        self._main_turned_at = self._watched_at = time.monotonic()
        self._renewed_at = 0.0
        self._asked_at = 0.0
        self._news: tuple[int, bool] | None = None
        self._delete_row = False
        self._started: Future[None] = Future()
        self._stopping = threading.Event()
        self._wake: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{service}", daemon=True)

    async def start(self) -> None:
        """Write the row and begin to renew it; raises `DatabaseUnavailableError` when that can't be done now."""
        self._thread.start()
        await asyncio.wrap_future(self._started)

    async def stop(self, delete_row: bool) -> None:
        """Stop renewing. Delete the row only when nothing is held: without it nobody looks for what is."""
        self._delete_row = delete_row
        self._stopping.set()
        if self._wake is not None:
            self._wake()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        rested = asyncio.Event()
        try:
            sent_at = time.monotonic()
            session = await self._session()
            await session.execute("insert_worker", *self._row, self._lease, self._queue_ids)
            reach(CrashPoint.LEASE_AFTER_BEGIN)
            self._renewed_at = sent_at
        except BaseException as error:  # noqa: BLE001 - handed to the caller of `start`
            await self._disconnect()
            self._started.set_exception(error)
            return
        self._wake = lambda: _call(loop, rested.set)
        self._main_turned_at = self._watched_at = time.monotonic()
        self._started.set_result(None)
        try:
            while not self._stopping.is_set():
                self._watch_main_loop()
                if self._is_due() and not await self._renew():
                    log.warning("lease_lost", worker_id=str(self.worker_id))
                    _call(self._main_loop, self._on_lost)
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(rested.wait(), self._rest_seconds())
            if self._delete_row:
                await self._delete()
        except BaseException:
            # A mistake of ours ends the renewals: nobody may go on as if there were any.
            _call(self._main_loop, self._on_lost)
            raise
        finally:
            await self._disconnect()

    def _is_due(self) -> bool:
        """Whether to renew now: always while somebody waits for what a renewal brings."""
        if self._news is None or self._news[1] or self._holds():
            return True
        # After a failure each look is a try.
        return self._asked_at > self._renewed_at or time.monotonic() >= self._renewed_at + self._renew_idle_seconds

    def _rest_seconds(self) -> float:
        """Until the next look. After a failure a random half is taken off: else all that lost one server come back in
        the same moment of each second. And it ends when the patience does: a loss is never told later than that.
        """
        if self._asked_at <= self._renewed_at:
            return self._look_seconds
        left = self._renewed_at + self._patience_seconds - time.monotonic()
        return min(self._look_seconds * (0.5 + random.random() / 2), max(0.0, left))

    async def _renew(self) -> bool:
        """One renewal; false when the lease is over, or may be by the time that we could know better."""
        sent_at = self._asked_at = time.monotonic()
        try:
            async with asyncio.timeout(max(0.05, self._renewed_at + self._patience_seconds - sent_at)):
                session = await self._session()
                row = await session.fetchrow("renew_lease", self.worker_id, self._lease)
        except (DatabaseUnavailableError, asyncpg.PostgresError, TimeoutError) as error:
            await self._disconnect()
            left = self._renewed_at + self._patience_seconds - time.monotonic()
            log.warning(
                "lease_not_renewed", worker_id=str(self.worker_id), reason=str(error), seconds_left=round(left, 2)
            )
            return left > 0
        if row is None:
            return False
        reach(CrashPoint.LEASE_AFTER_RENEWAL)
        self._renewed_at = sent_at
        if row["job_ids"]:
            _call(self._main_loop, self._on_cancel, list(zip(row["job_ids"], row["fences"], strict=True)))
        news = (row["revision"], row["has_backlog"])
        if news != self._news:
            self._news = news
            _call(self._main_loop, self._on_news, *news)
        return True

    async def _delete(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                session = await self._session()
                async with session.transaction():
                    # First, and by itself: the next statement sees what a claim has committed that this waited for.
                    await session.execute("lock_worker", self.worker_id)
                    await session.execute("delete_worker", self.worker_id)
        except (TransientError, asyncpg.PostgresError, TimeoutError):
            pass  # the lease runs out by itself

    async def _session(self) -> Session:
        if self._connection is None or self._connection.is_closed():
            with translated(None):
                self._connection = await connect(
                    self._dsn,
                    timeout=_CONNECT_SECONDS,
                    command_timeout=self._lease.total_seconds() / 2,
                    server_settings={"application_name": "barnabas-heartbeat"},
                )
        return Session(self._connection)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _watch_main_loop(self) -> None:
        """End the process when its main loop stands still: else its leases would be renewed for ever."""
        now = time.monotonic()
        if now - self._watched_at > _FROZEN_SECONDS:
            self._main_turned_at = now
        self._watched_at = now
        silent = now - self._main_turned_at
        if silent > self._stall_seconds():
            log.error("main_loop_stalled", silent_seconds=round(silent, 1), exit_code=EXIT_STALLED)
            sys.stdout.flush()
            os._exit(EXIT_STALLED)
        _call(self._main_loop, self._main_turned)

    def _main_turned(self) -> None:
        self._main_turned_at = time.monotonic()


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Run it on the loop's thread; nothing happens once that loop is closed, since then nobody is left to tell."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)
