"""Jobs on their way in and as people see them: the insert of a flush, and the read of whole jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from barnabas.contract.jobs import JobProgress, JobView, raw
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """An accepted job, before it is written. Payload, metadata and retry are JSON bytes."""

    tenant_id: UUID
    job_id: UUID
    type_id: int
    payload: bytes
    priority: int = 1
    queue_id: int = 0
    run_at: datetime | None = None
    timeout_ms: int | None = None
    max_attempts: int | None = None
    metadata: bytes | None = None
    retry: bytes | None = None
    trace: bytes | None = None
    redrive_of: UUID | None = None
    hooks: int = 0


async def insert_jobs(session: Session, jobs: Sequence[NewJob]) -> int | None:
    """Write a flush in one statement; returns the outbox row that tells Kafka, None when all of them are due later."""
    outbox_id: int | None = await session.fetchval(
        "insert_jobs",
        [job.tenant_id for job in jobs],
        [job.job_id for job in jobs],
        [job.type_id for job in jobs],
        [job.priority for job in jobs],
        [job.queue_id for job in jobs],
        [job.timeout_ms for job in jobs],
        [job.max_attempts for job in jobs],
        [job.run_at for job in jobs],
        [job.payload for job in jobs],
        [job.metadata for job in jobs],
        [job.retry for job in jobs],
        [job.trace for job in jobs],
        [job.redrive_of for job in jobs],
        [job.hooks for job in jobs],
    )
    return outbox_id


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job with what its view doesn't show: whose it is, and the event that told its end."""

    tenant_id: UUID
    event_id: UUID | None
    state: JobState
    fence: int
    losses: int
    reason: str | None
    view: JobView


async def read_jobs(session: Session, keys: Sequence[tuple[UUID, UUID]]) -> list[StoredJob]:
    """Whole jobs by (tenant_id, job_id), in the order asked; unknown ones are left out."""
    rows = await session.fetch("read_jobs", [key[0] for key in keys], [key[1] for key in keys])
    return [
        StoredJob(
            tenant_id=row["tenant_id"],
            event_id=row["event_id"],
            state=JobState(row["state"]),
            fence=row["fence"],
            losses=row["losses"],
            reason=row["reason"],
            view=JobView(
                id=row["job_id"],
                type=row["type"],
                status=JobState(row["state"]).label,
                priority=row["priority"],
                queue=row["queue"],
                attempt=row["attempt"],
                max_attempts=row["max_attempts"],
                created_at=row["created_at"],
                started_at=row["started_at"],
                finished_at=row["finished_at"],
                run_at=row["run_at"],
                result=raw(row["result"]),
                error=raw(row["error"]),
                metadata=raw(row["metadata"]),
                progress=None if row["percent"] is None else JobProgress(row["percent"], row["message"]),
                redrive_of=row["redrive_of"],
                cancel_requested=row["cancel_requested"],
            ),
        )
        for row in rows
    ]
