"""Pages of what a tenant has: jobs, timelines, deliveries, dead letters. Every call runs as the tenant it acts for.

Pages go by id, newest first; ids are UUIDv7, so that is the order of time, and a page begins below the last id of the
page before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from barnabas.domain.jobs import OPEN, JobState
from barnabas.postgres.database import Database, Session
from barnabas.postgres.jobs import StoredJob, read_jobs

NEWEST = UUID(int=(1 << 128) - 1)
"""Before this id: the first page."""
OLDEST = UUID(int=0)
"""From this id: no lower bound."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One line of a timeline; `state` is the job's own in the last one, RUNNING while it goes on."""

    kind: int
    attempt: int
    fence: int
    worker_id: UUID | None
    started_at: datetime | None
    finished_at: datetime | None
    next_at: datetime | None
    error: bytes | None
    state: JobState | None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One delivery."""

    delivery_id: UUID
    event_id: UUID
    endpoint_id: UUID
    job_id: UUID
    state: int
    attempt: int
    created_at: datetime
    due_at: datetime | None
    finished_at: datetime | None
    last_status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class DeliveryAttemptRow:
    """One call of an endpoint."""

    endpoint_id: UUID
    attempt: int
    started_at: datetime
    duration_ms: int
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened to a job."""

    job: StoredJob
    attempts: list[AttemptRow]
    deliveries: list[DeliveryRow]
    delivery_attempts: list[DeliveryAttemptRow]


@dataclass(frozen=True, slots=True)
class DeadJob:
    """An open dead letter that is a job."""

    job_id: UUID
    reason: str
    at: datetime
    job: StoredJob | None


@dataclass(frozen=True, slots=True)
class DeadDelivery:
    """An open dead letter that is a delivery."""

    delivery_id: UUID
    reason: str
    at: datetime
    delivery: DeliveryRow


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of jobs; `last_id` is where the next one begins, None when there is none."""

    jobs: list[StoredJob]
    last_id: UUID | None


# Results may have a megabyte each: so many are read at once, and no more once a page has this size.
_READ_AT_ONCE = 25
_PAGE_BYTES = 4 * 1024 * 1024


async def read_job(database: Database, tenant_id: UUID, job_id: UUID) -> StoredJob | None:
    """One job of a tenant; None for an unknown one and for another tenant's alike."""
    async with database.tenant(tenant_id) as session:
        found = await read_jobs(session, [(tenant_id, job_id)])
    return found[0] if found else None


async def list_jobs(
    database: Database,
    tenant_id: UUID,
    *,
    states: frozenset[JobState],
    type_name: str | None,
    queue: str | None,
    since: UUID,
    before: UUID,
    limit: int,
) -> JobList:
    """A page of jobs, newest first; no states = all of them. `since` and `before` are ids, the first one included.

    A page ends early when its results are large: 500 of a megabyte each would not fit anywhere.
    """
    about = (tenant_id, before, limit + 1, type_name, queue, since)
    open_states, ended_states = sorted(states & OPEN), sorted(states - OPEN)
    async with database.tenant(tenant_id) as session:
        ids: list[UUID] = []
        if not states:
            ids += [row["job_id"] for row in await session.fetch("list_job_ids", *about)]
        if open_states:
            ids += [row["job_id"] for row in await session.fetch("list_open_job_ids", *about, open_states)]
        if ended_states:
            # Most jobs succeed: those that didn't have an index of their own.
            query = "list_ended_job_ids" if JobState.SUCCEEDED in states else "list_unsuccessful_job_ids"
            ids += [row["job_id"] for row in await session.fetch(query, *about, ended_states)]
        # A job that ended between the two questions is in both answers.
        wanted = sorted(set(ids), reverse=True)
        jobs, read = await _read_page(session, tenant_id, wanted[:limit])
    more = read < len(wanted)
    return JobList(jobs, wanted[read - 1] if more else None)


async def _read_page(session: Session, tenant_id: UUID, ids: Sequence[UUID]) -> tuple[list[StoredJob], int]:
    """These jobs, up to a page's worth of bytes, and how many ids that took."""
    jobs: list[StoredJob] = []
    size = 0
    read = 0
    while read < len(ids) and size < _PAGE_BYTES:
        some = ids[read : read + _READ_AT_ONCE]
        found = await read_jobs(session, [(tenant_id, job_id) for job_id in some])
        size += sum(len(bytes(job.view.result)) for job in found)
        jobs += found
        read += len(some)
    return jobs, read


async def read_timeline(database: Database, tenant_id: UUID, job_id: UUID) -> Timeline | None:
    """A job with everything that happened to it."""
    async with database.tenant(tenant_id) as session:
        found = await read_jobs(session, [(tenant_id, job_id)])
        if not found:
            return None
        attempts = [
            AttemptRow(**{**row, "state": None if row["state"] is None else JobState(row["state"])})
            for row in await session.fetch("list_attempts", tenant_id, job_id)
        ]
        event_id = found[0].event_id
        if event_id is None:
            return Timeline(found[0], attempts, [], [])
        deliveries = [DeliveryRow(*row) for row in await session.fetch("list_job_deliveries", tenant_id, event_id)]
        calls = [DeliveryAttemptRow(*row) for row in await session.fetch("list_delivery_attempts", tenant_id, event_id)]
        return Timeline(found[0], attempts, deliveries, calls)


async def list_deliveries(
    database: Database,
    tenant_id: UUID,
    *,
    states: Sequence[int] | None,
    endpoint_id: UUID | None,
    job_id: UUID | None,
    before: UUID,
    limit: int,
) -> list[DeliveryRow]:
    """A page of deliveries, newest first."""
    async with database.tenant(tenant_id) as session:
        rows = await session.fetch("list_deliveries", tenant_id, before, limit, states, endpoint_id, job_id)
    return [DeliveryRow(*row) for row in rows]


async def list_dead_jobs(
    database: Database,
    tenant_id: UUID,
    *,
    type_name: str | None,
    reason: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    ids: Sequence[UUID] | None,
    before: UUID,
    limit: int,
) -> list[DeadJob]:
    """A page of jobs that need a person, newest first."""
    async with database.tenant(tenant_id) as session:
        rows = await session.fetch(
            "list_dead_jobs", tenant_id, before, limit, type_name, reason, created_after, created_before, ids
        )
        jobs = {job.view.id: job for job in await read_jobs(session, [(tenant_id, row["ref"]) for row in rows])}
    return [DeadJob(row["ref"], row["reason"], row["at"], jobs.get(row["ref"])) for row in rows]


async def list_dead_deliveries(
    database: Database,
    tenant_id: UUID,
    *,
    reason: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    ids: Sequence[UUID] | None,
    before: UUID,
    limit: int,
) -> list[DeadDelivery]:
    """A page of deliveries that need a person, newest first."""
    async with database.tenant(tenant_id) as session:
        rows = await session.fetch(
            "list_dead_deliveries", tenant_id, before, limit, reason, created_after, created_before, ids
        )
    return [DeadDelivery(row["ref"], row["reason"], row["at"], DeliveryRow(*row[3:])) for row in rows]


async def find_ended(database: Database, keys: Sequence[tuple[UUID, UUID]]) -> list[UUID]:
    """Which of these jobs, by (tenant_id, job_id), are not open any more. For the engine login."""
    rows = await database.fetch("find_ended_jobs", [key[0] for key in keys], [key[1] for key in keys])
    return [row["job_id"] for row in rows]
