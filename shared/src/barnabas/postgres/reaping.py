"""What a reaper reads and deletes: workers whose lease is over, what they held, and attempts past their deadline.

What becomes of a job that was taken back is decided in `domain.attempts` and written like any other ending, with the
dead worker's id: if that worker lives after all, whoever comes first wins and the other is superseded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from barnabas.postgres.database import Session
from barnabas.postgres.deliveries import DeliveryKey


@dataclass(frozen=True, slots=True)
class ExpiredWorker:
    """A heartbeat row whose lease is over by the database's clock, and what judging that fairly needs."""

    worker_id: UUID
    service: str
    lease_until: datetime
    now: datetime
    server_started_at: datetime


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that a worker holds."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    attempt: int
    max_attempts: int | None
    losses: int
    hooks: int
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """All that a dead worker's batches name; much of it has ended long since."""

    jobs: list[tuple[UUID, UUID]]
    deliveries: list[DeliveryKey]


async def list_expired_workers(session: Session) -> list[ExpiredWorker]:
    """Whose lease is over, longest first."""
    return [ExpiredWorker(*row) for row in await session.fetch("list_expired_workers")]


async def bury_worker(session: Session, worker_id: UUID) -> LeftBehind | None:
    """Delete an expired worker with its batches; None when it isn't expired any more, or someone else was quicker.

    Comes first in its transaction: from here on no claim of that worker can commit.
    """
    if await session.fetchval("delete_expired_worker", worker_id) is None:
        return None
    jobs: list[tuple[UUID, UUID]] = []
    deliveries: list[DeliveryKey] = []
    for batch in await session.fetch("list_lease_batches", worker_id):
        if batch["endpoint_ids"] is None:
            jobs += zip(batch["tenant_ids"], batch["ref_ids"], strict=True)
        else:
            triples = zip(batch["tenant_ids"], batch["ref_ids"], batch["endpoint_ids"], strict=True)
            deliveries += [DeliveryKey(*triple) for triple in triples]
    await session.execute("delete_lease_batches_of", worker_id)
    await session.execute("delete_cancel_requests_of", worker_id)
    return LeftBehind(jobs, deliveries)


async def find_held_jobs(session: Session, worker_id: UUID, keys: Sequence[tuple[UUID, UUID]]) -> list[HeldJob]:
    """Which of these (tenant_id, job_id) the worker holds, in key order."""
    ordered = sorted(keys)
    rows = await session.fetch("find_held_jobs", worker_id, [key[0] for key in ordered], [key[1] for key in ordered])
    return [HeldJob(*row) for row in rows]


async def list_overdue_jobs(
    session: Session, *, grace_seconds: float, limit: int
) -> dict[UUID, list[tuple[UUID, UUID]]]:
    """Attempts past their own deadline and the grace, as (tenant_id, job_id) by the worker that holds them."""
    overdue: dict[UUID, list[tuple[UUID, UUID]]] = {}
    for worker_id, tenant_id, job_id in await session.fetch(
        "list_overdue_jobs", timedelta(seconds=grace_seconds), limit
    ):
        overdue.setdefault(worker_id, []).append((tenant_id, job_id))
    return overdue
