"""What the reconciler reads: open jobs, deliveries without a holder, events without a delivery, identities of topics.

There is no index on a job's state, so all open jobs are walked by their key, a page at a time; what the walk counts on
its way are the metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Session
from barnabas.postgres.deliveries import DeliveryKey

FIRST = (UUID(int=0), UUID(int=0))
"""The key before every key."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A job that is ready and whose record Kafka may have lost. `ready_at` is when it became ready."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    priority: int
    queue_id: int
    type_id: int
    ready_at: datetime
    state: int = JobState.QUEUED
    """Delayed ones are lost with their timer, and overdue."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the open jobs."""

    seen: int
    last: tuple[UUID, UUID]
    by_state: list[int]
    """How many in the states 0 to 4."""
    oldest_ready: list[datetime | None]
    """Since when the oldest queued job of the priorities 0 to 3 has been ready."""
    suspects: list[Suspect]
    orphans: dict[UUID, list[tuple[UUID, UUID]]]
    """Running jobs, by a worker that has no heartbeat row: (tenant_id, job_id)."""


async def inspect_open_jobs(
    session: Session,
    after: tuple[UUID, UUID],
    *,
    limit: int,
    ready_before: datetime,
    overdue_before: datetime,
    started_before: datetime,
) -> Page:
    """The page behind the key `after`; fewer jobs than `limit` means that it was the last."""
    row = await session.fetchrow("inspect_open_jobs", *after, limit, ready_before, overdue_before, started_before)
    assert row is not None
    orphans: dict[UUID, list[tuple[UUID, UUID]]] = {}
    for worker_id, tenant_id, job_id in row["orphans"] or ():
        orphans.setdefault(worker_id, []).append((tenant_id, job_id))
    return Page(
        row["seen"],
        (row["last_tenant"], row["last_job"]) if row["seen"] else after,
        row["by_state"],
        row["oldest_ready"],
        [Suspect(*suspect) for suspect in row["suspects"] or ()],
        orphans,
    )


async def read_oldest_outbox(session: Session) -> datetime:
    """What became ready before this has left the outbox."""
    at: datetime = await session.fetchval("read_oldest_outbox")
    return at


async def list_pending_deliveries(session: Session, *, limit: int) -> list[tuple[DeliveryKey, int]]:
    """Deliveries that may be tried now, with their fence, oldest events first."""
    rows = await session.fetch("list_pending_deliveries", limit)
    return [(DeliveryKey(row[0], row[1], row[2]), row[3]) for row in rows]


async def list_told_tenants(session: Session) -> list[UUID]:
    """Tenants with an endpoint that wants to be told."""
    return [row["tenant_id"] for row in await session.fetch("list_told_tenants")]


async def list_undelivered_jobs(
    session: Session, tenant_id: UUID, *, after: UUID, since_event: UUID, limit: int
) -> list[UUID]:
    """Jobs that ended since then and whose event has no delivery, by id."""
    rows = await session.fetch("list_undelivered_jobs", tenant_id, after, since_event, limit)
    return [row["job_id"] for row in rows]


async def read_kafka_topics(session: Session) -> dict[str, tuple[str, str]]:
    """(cluster id, topic id) by topic, as last seen."""
    return {row["topic"]: (row["cluster_id"], row["topic_id"]) for row in await session.fetch("read_kafka_topics")}


async def write_kafka_topics(session: Session, seen: Mapping[str, tuple[str, str]]) -> None:
    """Remember these identities, by topic."""
    names: Sequence[str] = sorted(seen)
    await session.execute(
        "write_kafka_topics", names, [seen[name][0] for name in names], [seen[name][1] for name in names]
    )
