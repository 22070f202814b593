"""What a flush does: store its jobs in one commit, then tell Kafka; one bad row fails alone.

A statement that Postgres refuses for what is in it is tried again in halves until the bad row is by itself.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from barnabas.contract.telling import Envelope, job_record
from barnabas.errors import BarnabasError, DatabaseUnavailableError
from barnabas.kafka.teller import Teller
from barnabas.postgres.database import Session
from barnabas.postgres.submissions import KeyHolder, Submission, UnstorableError, accept_jobs, accept_keyed_jobs
from barnabas_ingest.lane import Parcel

Place = tuple[Parcel, int]
"""Where a row of a flush came from."""


class Flush:
    """The write steps of the lanes; one per process."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    async def write_plain(self, session: Session, parcels: Sequence[Parcel]) -> None:
        """Store jobs without a key."""
        await self._plain(session, list(_places(parcels)))

    async def write_keyed(self, session: Session, parcels: Sequence[Parcel]) -> None:
        """Store those jobs whose key is free; the others learn who holds theirs."""
        await self._keyed(session, list(_places(parcels)))

    async def _plain(self, session: Session, places: Sequence[Place]) -> None:
        jobs = [parcel.jobs[at] for parcel, at in places]
        told = self._teller.take_acknowledged()
        try:
            outbox_id = await accept_jobs(session, jobs, told=told)
        except UnstorableError as error:
            self._teller.untaken(told)
            await _in_halves(self._plain, session, places, error)
            return
        except BarnabasError as error:
            self._teller.untaken(told)
            _fail(places, error)
            raise
        self._tell(outbox_id, jobs)

    async def _keyed(self, session: Session, places: Sequence[Place]) -> None:
        jobs = [parcel.jobs[at] for parcel, at in places]
        keys = [parcel.keys[at] for parcel, at in places]
        try:
            holders, outbox_id = await accept_keyed_jobs(
                session, jobs, [key for key, _ in keys], [fingerprint for _, fingerprint in keys]
            )
        except UnstorableError as error:
            await _in_halves(self._keyed, session, places, error)
            return
        except BarnabasError as error:
            _fail(places, error)
            raise
        for (parcel, at), holder in zip(places, holders, strict=True):
            parcel.holders[at] = holder
            if holder is None:
                parcel.failures[at] = DatabaseUnavailableError("the key was cleaned away at this moment")
        self._tell(outbox_id, made_jobs(jobs, holders))

    def _tell(self, outbox_id: int | None, jobs: Iterable[Submission]) -> None:
        if outbox_id is not None:
            self._teller.tell(outbox_id, ready_records(jobs))


def made_jobs(jobs: Sequence[Submission], holders: Sequence[KeyHolder | None]) -> list[Submission]:
    """Those that were stored: their key was free."""
    return [job for job, holder in zip(jobs, holders, strict=True) if holder is not None and holder.made]


def ready_records(jobs: Iterable[Submission]) -> Iterator[Envelope]:
    """What Kafka is told of new jobs: nothing of those that are due later."""
    return (
        job_record(job.tenant_id, job.job_id, 0, job.priority, job.queue_id, job.type_id)
        for job in jobs
        if job.due_at is None
    )


def _places(parcels: Sequence[Parcel]) -> Iterator[Place]:
    return ((parcel, at) for parcel in parcels for at in range(len(parcel.jobs)))


async def _in_halves(
    write: Callable[[Session, Sequence[Place]], Awaitable[None]],
    session: Session,
    places: Sequence[Place],
    error: UnstorableError,
) -> None:
    if len(places) == 1:
        _fail(places, error)
        return
    middle = len(places) // 2
    try:
        await write(session, places[:middle])
    except BarnabasError as away:
        _fail(places[middle:], away)
        raise
    await write(session, places[middle:])


def _fail(places: Sequence[Place], error: BarnabasError) -> None:
    for parcel, at in places:
        parcel.failures[at] = error
