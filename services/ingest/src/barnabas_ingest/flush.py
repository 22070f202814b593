"""What a flush does: store its jobs in one commit, then tell Kafka; one bad row fails alone.

A statement that Postgres refuses for what is in it is tried again in halves until the bad row is by itself.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from barnabas.contract.telling import ReadyJob, job_record
from barnabas.errors import BarnabasError, DatabaseUnavailableError
from barnabas.kafka.teller import Teller
from barnabas.postgres.database import ConflictError, Session
from barnabas.postgres.submissions import Accepted, Submission, UnstorableError, accept_jobs, accept_keyed_jobs
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas_ingest.lane import Parcel

Place = tuple[Parcel, int]
"""Where a row of a flush came from."""

_CONFLICTS_MAX = 4


class Flush:
    """The write steps of the lanes; one per process."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    async def write_plain(self, session: Session, parcels: Sequence[Parcel]) -> None:
        """Store jobs without a key."""
        await self._plain(session, _Rows(parcels))

    async def write_keyed(self, session: Session, parcels: Sequence[Parcel]) -> None:
        """Store those jobs whose key is free, or that have none; the others learn who holds theirs."""
        await self._keyed(session, _Rows(parcels))

    async def _plain(self, session: Session, rows: "_Rows") -> None:
        jobs = rows.jobs()
        reach(CrashPoint.INGEST_BEFORE_STORE)
        try:
            with self._teller.deleting() as told:
                accepted = await again_after_conflict(lambda: accept_jobs(session, jobs, told=told))
        except UnstorableError as error:
            await _in_halves(self._plain, session, rows, error)
            return
        except BarnabasError as error:
            rows.fail(error)
            raise
        reach(CrashPoint.INGEST_AFTER_STORE)
        self._settle(rows, jobs, accepted)

    async def _keyed(self, session: Session, rows: "_Rows") -> None:
        jobs = rows.jobs()
        keys = [parcel.keys[at] for parcel, at in rows.places()]
        try:
            accepted = await again_after_conflict(lambda: accept_keyed_jobs(session, jobs, keys))
        except UnstorableError as error:
            await _in_halves(self._keyed, session, rows, error)
            return
        except BarnabasError as error:
            rows.fail(error)
            raise
        reach(CrashPoint.INGEST_AFTER_KEYS)
        for (parcel, at), holder in zip(rows.places(), accepted.holders, strict=True):
            parcel.holders[at] = holder
            if holder is None:
                parcel.failures[at] = DatabaseUnavailableError("the key was cleaned away at this moment")
        self._settle(rows, jobs, accepted)

    def _settle(self, rows: "_Rows", jobs: Sequence[Submission], accepted: Accepted) -> None:
        if accepted.marks or accepted.rates:
            for number, (parcel, at) in enumerate(rows.places()):
                parcel.rates = accepted.rates
                if (mark := accepted.marks.get(number)) is not None:
                    parcel.marks[at] = mark
                    if (error := accepted.error_of(jobs[number], number)) is not None:
                        parcel.failures[at] = error
        if accepted.outbox_id is not None:
            self._teller.tell(accepted.outbox_id, ready_records(told_jobs(jobs, accepted)))
            reach(CrashPoint.INGEST_AFTER_TELL)


class _Rows:
    """The jobs of some parcels, one after the other, or a stretch of them. Where each came from is only worked out when
    there is something to say of it: most flushes have nothing."""

    __slots__ = ("_begin", "_end", "_parcels")

    def __init__(self, parcels: Sequence[Parcel], begin: int = 0, end: int | None = None) -> None:
        self._parcels = parcels
        self._begin = begin
        self._end = sum(len(parcel.jobs) for parcel in parcels) if end is None else end

    def __len__(self) -> int:
        return self._end - self._begin

    def jobs(self) -> list[Submission]:
        """In their order."""
        return [job for parcel in self._parcels for job in parcel.jobs][self._begin : self._end]

    def places(self) -> list[Place]:
        """Where each came from."""
        places = [(parcel, at) for parcel in self._parcels for at in range(len(parcel.jobs))]
        return places[self._begin : self._end]

    def halves(self) -> "tuple[_Rows, _Rows]":
        """The first and the second of them."""
        middle = self._begin + len(self) // 2
        return _Rows(self._parcels, self._begin, middle), _Rows(self._parcels, middle, self._end)

    def fail(self, error: BarnabasError) -> None:
        """None of them was stored."""
        for parcel, at in self.places():
            parcel.failures[at] = error


def told_jobs(jobs: Sequence[Submission], accepted: Accepted) -> Sequence[Submission]:
    """Those of a flush that its outbox row names: stored by this call, not blocked, not parked, not due later."""
    if not accepted.holders and not accepted.marks:
        return [job for job in jobs if job.due_at is None]
    untold = {number for number, mark in accepted.marks.items() if mark.is_untold}
    untold.update(number for number, holder in enumerate(accepted.holders) if holder is None or not holder.made)
    return [job for number, job in enumerate(jobs) if job.due_at is None and number not in untold]


def ready_records(jobs: Iterable[Submission]) -> Iterator[ReadyJob]:
    """What Kafka is told of jobs that may run now."""
    return (job_record(job.tenant_id, job.job_id, 0, job.priority, job.queue_id, job.type_id) for job in jobs)


async def again_after_conflict(write: Callable[[], Awaitable[Accepted]]) -> Accepted:
    """A flush is one statement: a deadlock's victim simply does it again, and the other has gone on by then."""
    for _ in range(_CONFLICTS_MAX):
        try:
            return await write()
        except ConflictError:
            continue
    return await write()


async def _in_halves(
    write: Callable[[Session, _Rows], Awaitable[None]], session: Session, rows: _Rows, error: UnstorableError
) -> None:
    if len(rows) == 1:
        rows.fail(error)
        return
    first, second = rows.halves()
    try:
        await write(session, first)
    except BarnabasError as away:
        second.fail(away)
        raise
    await write(session, second)
