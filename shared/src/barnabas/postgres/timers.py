"""Timers: every due time that Postgres knows of, polled in order of when to look.

Only the poller deletes a timer. Where a delay tier carries the record, the poller looks five seconds after it was due:
nearly always the job has gone its way by then, and a record that Kafka lost is late by five seconds, not for ever.
"""

from dataclasses import dataclass
from datetime import datetime

from barnabas.postgres.database import Session


@dataclass(frozen=True, slots=True)
class DueTimers:
    """What one poll found."""

    taken: int
    """Timers that were due; as many as asked for means that there may be more."""
    outbox_ids: list[int]
    """What Kafka must be told now."""
    lateness_seconds: list[float]
    """Of each job that had to be woken."""
    next_at: datetime | None
    """When the next timer wants to be looked at."""


async def take_due_timers(session: Session, *, limit: int) -> DueTimers:
    """Make ready what is due and still waits, and delete the timers: one statement, one transaction."""
    row = await session.fetchrow("take_due_timers", limit)
    assert row is not None
    outbox_ids = [row[name] for name in ("jobs_outbox", "deliveries_outbox") if row[name] is not None]
    return DueTimers(row["taken"], outbox_ids, row["lateness_seconds"], row["next_at"])
