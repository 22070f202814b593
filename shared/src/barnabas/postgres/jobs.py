"""Jobs as people see them: whole, open or ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from barnabas.contract.jobs import JobProgress, JobView, raw
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Session


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
                ordering_key=row["ordering_key"],
            ),
        )
        for row in rows
    ]
