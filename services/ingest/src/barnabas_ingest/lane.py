"""A lane of group commits: submissions of all connections share its transactions.

A flush starts when a full batch is gathered, or when none is in flight and the hold is over; the hold is 0 while little
arrives. A second flush may fly when a full batch waits, so that the next one is encoded while the disk works.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

import structlog

from barnabas.domain.grouping import RateMeter, hold_seconds
from barnabas.domain.jobs import JobState
from barnabas.errors import BarnabasError, DatabaseUnavailableError
from barnabas.postgres.database import Database, Session
from barnabas.postgres.submissions import KeyHolder, Mark, Rate, Submission, is_open
from barnabas.runtime import metrics

log = structlog.get_logger(__name__)

FLUSH_JOBS_MAX = 500
_ASK_AGAIN_SECONDS = 1.0
_NO_RATES: Mapping[UUID, Rate] = {}


class Parcel:
    """Jobs that one caller hands in together, at most a flush full.

    When `settled` is done, `failures` names those that were not stored, by their place; all others are committed.
    `keys` and `holders` are for the keyed lane: key and fingerprint of each job, and who holds the key now.
    `marks` has what the database says of some, by their place, and `rates` what is left to tenants that have a limit.
    """

    __slots__ = ("arrived", "failures", "holders", "jobs", "keys", "marks", "rates", "settled")

    def __init__(self, jobs: Sequence[Submission], keys: Sequence[tuple[str, bytes] | None] = ()) -> None:
        self.jobs = jobs
        self.keys = keys
        self.holders: list[KeyHolder | None] = [None] * len(keys)
        self.failures: dict[int, BarnabasError] = {}
        self.marks: dict[int, Mark] = {}
        self.rates: Mapping[UUID, Rate] = _NO_RATES
        self.arrived = time.monotonic()
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def status_of(self, at: int) -> str:
        """The state of a job that was stored."""
        if self.marks and self.marks.get(at, Mark(0)) & Mark.BLOCKED:
            return JobState.BLOCKED.label
        return "queued" if self.jobs[at].due_at is None else "scheduled"

    def fail(self, error: BarnabasError) -> None:
        """Nothing of it was stored."""
        self.failures = dict.fromkeys(range(len(self.jobs)), error)


class Lane:
    """The queue in front of one kind of flush, and the connections that fly it."""

    def __init__(
        self,
        name: str,
        database: Database,
        write: Callable[[Session, Sequence[Parcel]], Awaitable[None]],
        *,
        flights: int,
    ) -> None:
        self.name = name
        self.flushed_at = 0.0
        """When the last flush landed, by the monotonic clock."""
        self.connected = True
        """Whether the last flush reached Postgres."""
        self._database = database
        self._write = write
        self._flights = flights
        self._waiting: deque[Parcel] = deque()
        self._jobs = 0
        self._flying = 0
        self._closing = False
        self._arrivals = RateMeter()
        self._bell = asyncio.Event()
        self._rows = metrics.flush_rows.labels(name)
        self._seconds = metrics.flush_seconds.labels(name)

    def put(self, parcel: Parcel) -> None:
        """Queue jobs; the caller has seen to it that there is room for them."""
        was_empty = not self._jobs
        self._waiting.append(parcel)
        self._jobs += len(parcel.jobs)
        self._arrivals.add(len(parcel.jobs), now=parcel.arrived)
        if was_empty or self._jobs >= FLUSH_JOBS_MAX:
            self._bell.set()

    async def store(self, parcel: Parcel) -> None:
        """Queue jobs and wait until it is decided about each of them."""
        self.put(parcel)
        await parcel.settled

    async def run(self) -> None:
        """Flush until closed and empty."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._flights):
                group.create_task(self._fly_for_ever(), name=f"{self.name}-{number}")

    def close(self) -> None:
        """End when nothing waits any more."""
        self._closing = True
        self._bell.set()

    async def _fly_for_ever(self) -> None:
        while not self._is_over():
            try:
                # A connection of one's own: taking one from the pool for each flush costs 0.2 ms.
                async with self._database.session() as session:
                    self.connected = True
                    # A connection that died while nothing was to be done is no reason to refuse anybody.
                    while await self._gathered() and is_open(session):
                        await self._fly(session, self._take())
            except DatabaseUnavailableError as error:
                if self.connected:
                    log.warning("database_away", lane=self.name, reason=str(error))
                self.connected = False
                # Whoever waits is told now, and Postgres is asked again: by the next flush, or without one after a
                # while. A process that isn't ready gets no requests, and would wait for ever for one to be ready again.
                if await self._gathered_within(_ASK_AGAIN_SECONDS):
                    for parcel in self._take():
                        parcel.fail(error)
                        _settle(parcel)

    async def _gathered_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._gathered()
        except TimeoutError:
            return False

    async def _gathered(self) -> bool:
        """Wait for a batch that should fly now; false when the lane is over."""
        while not self._is_over():
            self._bell.clear()
            if self._jobs >= FLUSH_JOBS_MAX or (self._closing and self._jobs):
                return True
            rest: float | None = None
            if self._jobs and not self._flying:
                now = time.monotonic()
                rest = self._waiting[0].arrived + hold_seconds(self._arrivals.rate(now=now)) - now
                if rest <= 0:
                    return True
            try:
                async with asyncio.timeout(rest):
                    await self._bell.wait()
            except TimeoutError:
                pass  # the hold is over
        return False

    def _is_over(self) -> bool:
        return self._closing and not self._jobs

    def _take(self) -> list[Parcel]:
        taken: list[Parcel] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0].jobs) <= FLUSH_JOBS_MAX):
            parcel = self._waiting.popleft()
            count += len(parcel.jobs)
            taken.append(parcel)
        self._jobs -= count
        return taken

    async def _fly(self, session: Session, parcels: Sequence[Parcel]) -> None:
        self._flying += 1
        started = time.monotonic()
        try:
            await self._write(session, parcels)
        except BarnabasError:
            raise  # the step has noted what it did not store
        except BaseException:
            # Nobody may take this for a commit.
            for parcel in parcels:
                parcel.fail(DatabaseUnavailableError())
            raise
        finally:
            self._flying -= 1
            self.flushed_at = time.monotonic()
            for parcel in parcels:
                _settle(parcel)
            self._bell.set()
        self._rows.observe(sum(len(parcel.jobs) for parcel in parcels))
        self._seconds.observe(self.flushed_at - started)


def _settle(parcel: Parcel) -> None:
    # A caller that went away has cancelled its wait.
    if not parcel.settled.done():
        parcel.settled.set_result(None)
