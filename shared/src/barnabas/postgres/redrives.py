"""Dead letters sent round again: a job as a new job, a delivery as another try of the same row.

Many at once may be spread over time. Their due times are in Postgres then, so they come at that rate whoever asked for
them, in however many calls, and whatever is restarted meanwhile.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from barnabas.postgres.database import Session


@dataclass(frozen=True, slots=True)
class JobRedrive:
    """What came of redriving a job; `job_id` is the new one, and what follows is set when this call made it.

    There is no `outbox_id` for one that is due later, waits for its turn in a line, or behind its tenant's backlog.
    """

    answer: Literal["redriven", "open", "closed", "not_failed", "absent"]
    job_id: UUID | None
    outbox_id: int | None
    type_id: int | None
    priority: int | None
    queue_id: int | None


@dataclass(frozen=True, slots=True)
class DeliveryRedrive:
    """What came of redriving a delivery."""

    answer: Literal["redriven", "closed", "unwanted", "absent"]
    outbox_id: int | None
    event_id: UUID | None
    endpoint_id: UUID | None
    fence: int | None


_KINDS: dict[str, int] = {"jobs": 1, "deliveries": 2}


async def reserve_redrives(
    session: Session, tenant_id: UUID, kind: Literal["jobs", "deliveries"], *, count: int, rate: float
) -> list[datetime]:
    """When each of this many redrives is due so that no more than `rate` come in a second, after those before them."""
    first_at: datetime = await session.fetchval("reserve_redrives", tenant_id, _KINDS[kind], count, rate)
    return [first_at + timedelta(seconds=place / rate) for place in range(count)]


async def redrive_job(
    session: Session, tenant_id: UUID, job_id: UUID, *, new_id: UUID, due_at: datetime | None = None
) -> JobRedrive:
    """Close a job's dead letter and make a new job of it, in one transaction; the same redrive twice is one job."""
    row = await session.fetchrow("redrive_job", tenant_id, job_id, new_id, due_at)
    assert row is not None
    return JobRedrive(row["answer"], row["job_id"], row["outbox"], row["type_id"], row["priority"], row["queue_id"])


async def redrive_delivery(
    session: Session, tenant_id: UUID, delivery_id: UUID, *, due_at: datetime | None = None
) -> DeliveryRedrive:
    """Close a delivery's dead letter and let it be tried again; its attempts count on."""
    row = await session.fetchrow("redrive_delivery", tenant_id, delivery_id, due_at)
    assert row is not None
    return DeliveryRedrive(row["answer"], row["outbox"], row["event_id"], row["endpoint_id"], row["fence"])
