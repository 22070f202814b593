"""Whoever waits for the end of a job: one question to Postgres a tenth of a second, for all of them together."""

import asyncio
from collections import defaultdict
from uuid import UUID

from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.database import Database
from barnabas.postgres.listings import find_ended
from barnabas.runtime.stop import Stop

_POLL_SECONDS = 0.1
# Ids in one question.
_IDS_MAX = 2_000

Key = tuple[UUID, UUID]


class Waits:
    """The jobs that are waited for; one per process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: defaultdict[Key, set[asyncio.Future[None]]] = defaultdict(set)
        self._bell = asyncio.Event()
        self._over = False

    async def ended(self, tenant_id: UUID, job_id: UUID, *, seconds: float) -> None:
        """Return when the job has ended, or `seconds` are over, or the process stops."""
        if self._over:
            return
        key = (tenant_id, job_id)
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key].add(told)
        self._bell.set()
        try:
            async with asyncio.timeout(seconds):
                await told
        except TimeoutError:
            pass  # the caller shows the job as it is
        finally:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.discard(told)
                if not waiting:
                    del self._waiting[key]

    async def run(self, stop: Stop) -> None:
        """Tell those whose job has ended, until the stop; then tell everybody."""
        try:
            while not stop.is_set():
                if not self._waiting:
                    self._bell.clear()
                    await _either(self._bell, stop)
                elif not await stop.wait(_POLL_SECONDS):
                    await self.ask()
        finally:
            self._over = True
            self._tell(list(self._waiting))

    async def ask(self) -> None:
        """Ask once which of the jobs have ended."""
        keys = list(self._waiting)
        for begin in range(0, len(keys), _IDS_MAX):
            some = keys[begin : begin + _IDS_MAX]
            try:
                ended = set(await find_ended(self._database, some))
            except DatabaseUnavailableError:
                return  # they go on waiting; their time is limited
            self._tell([key for key in some if key[1] in ended])

    def _tell(self, keys: list[Key]) -> None:
        for key in keys:
            for told in self._waiting.get(key, ()):
                if not told.done():
                    told.set_result(None)


async def _either(bell: asyncio.Event, stop: Stop) -> None:
    """Return when somebody waits, or at the stop."""
    tasks = [asyncio.ensure_future(bell.wait()), asyncio.ensure_future(stop.requested())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
