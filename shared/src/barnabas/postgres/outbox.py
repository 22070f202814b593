"""The outbox as the relay sees it: rows that were left behind, and what each of them has to say by now.

A record is made anew from the committed rows, so it is the one that the writer would have sent. What has moved on since
is left out: a job that someone claimed needs no record any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from uuid import UUID

from barnabas.contract.events import JobEvent
from barnabas.contract.telling import Envelope, OutboxKind, ReadyJob, Told, event_records, job_record, retry_record
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Session
from barnabas.postgres.deliveries import DeliveryKey, tell_deliveries


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One flushed batch that Kafka must be told of."""

    outbox_id: int
    created_at: datetime
    kind: OutboxKind
    tenant_ids: list[UUID]
    ref_ids: list[UUID]
    endpoint_ids: list[UUID] | None
    fences: list[int]


async def list_stale_outbox(session: Session, *, age_seconds: float, limit: int) -> list[OutboxRow]:
    """Rows that their writer has had this long to tell, oldest first."""
    rows = await session.fetch("list_stale_outbox", timedelta(seconds=age_seconds), limit)
    return [OutboxRow(row[0], row[1], OutboxKind(row[2]), *row[3:]) for row in rows]


async def read_outbox(session: Session, outbox_ids: Sequence[int]) -> list[OutboxRow]:
    """These rows, as far as they still exist."""
    rows = await session.fetch("read_outbox", list(outbox_ids))
    return [OutboxRow(row[0], row[1], OutboxKind(row[2]), *row[3:]) for row in rows]


async def insert_outbox(
    session: Session, kind: OutboxKind, tenant_ids: Sequence[UUID], ref_ids: Sequence[UUID], fences: Sequence[int]
) -> int:
    """One row for jobs that Kafka must be told of; in the transaction that makes it necessary."""
    outbox_id: int = await session.fetchval("insert_outbox", kind, list(tenant_ids), list(ref_ids), None, list(fences))
    return outbox_id


async def records_of(session: Session, rows: Sequence[OutboxRow]) -> list[ReadyJob | Envelope | Told]:
    """Everything that these rows have to say now; one query for each kind among them."""
    records: list[ReadyJob | Envelope | Told] = []
    for kind in sorted({row.kind for row in rows}):
        same = [row for row in rows if row.kind is kind]
        tenants = list(chain.from_iterable(row.tenant_ids for row in same))
        refs = list(chain.from_iterable(row.ref_ids for row in same))
        fences = list(chain.from_iterable(row.fences for row in same))
        match kind:
            case OutboxKind.READY_JOBS:
                records += [job_record(*job) for job in await session.fetch("read_ready_jobs", tenants, refs, fences)]
            case OutboxKind.LATER_JOBS:
                later = await session.fetch("read_later_jobs", tenants, refs, fences)
                records += [retry_record(*job[:6], due_at=job[6]) for job in later]
            case OutboxKind.ENDED_JOBS:
                for event in await read_events(session, tenants, refs):
                    records += event_records(event)
            case OutboxKind.DELIVERIES:
                endpoints = chain.from_iterable(row.endpoint_ids or () for row in same)
                keys = [DeliveryKey(*key) for key in zip(tenants, refs, endpoints, strict=True)]
                envelopes, told = await tell_deliveries(session, keys, fences)
                records += envelopes
                records += told
    return records


async def read_events(session: Session, tenant_ids: Sequence[UUID], job_ids: Sequence[UUID]) -> list[JobEvent]:
    """The events of these ended jobs; jobs whose result is gone, or that never ended, have none."""
    rows = await session.fetch("read_ended_jobs", list(tenant_ids), list(job_ids))
    return [
        JobEvent(
            id=row["event_id"],
            type=f"job.{JobState(row['state']).label}",  # type: ignore[arg-type]  # an ended job has one of the three
            tenant_id=row["tenant_id"],
            job_id=row["job_id"],
            job_type=row["type"],
            attempt=row["attempt"],
            fence=row["fence"],
            reason=row["reason"],
        )
        for row in rows
    ]
