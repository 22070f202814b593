"""What Kafka is told: the one place that turns committed facts into records, for each kind of outbox row.

Writer, relay and reconciler all come through here and so send the same bytes. Pure, and cheap enough for once a job.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from barnabas.contract import topics
from barnabas.contract.deliveries import DeadDelivery
from barnabas.contract.events import HEADERS, JobEvent
from barnabas.contract.records import Record, RecordKind

Envelope = tuple[str, bytes, bytes]
"""An internal record, ready to be sent: topic, key, value. Internal topics carry no headers."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_JOBS = tuple(topic.name for topic in topics.JOBS)
_RETRIES = topics.RETRIES.name
_DELIVERIES_RETRY = topics.DELIVERIES_RETRY.name


class OutboxKind(IntEnum):
    """What an outbox row asks for. Stored: the numbers never change their meaning."""

    READY_JOBS = 1
    """Jobs that may run now: to their priority's topic."""
    LATER_JOBS = 2
    """Jobs with a backoff: to `retries`."""
    ENDED_JOBS = 3
    """Events to `results`, dead letters to `jobs.dlq` too."""
    DELIVERIES = 4
    """Deliveries to `deliveries.retry`, by way of `retries` when they are due later; dead ones to `deliveries.dlq`."""


class Told(NamedTuple):
    """A record for others to read: JSON with headers."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]


@lru_cache(maxsize=10_000)
def tenant_key(tenant_id: UUID) -> bytes:
    """The key of every record of a tenant, so that all of them share a partition."""
    return str(tenant_id).encode()


def due_ms(due_at: datetime) -> int:
    """Unix milliseconds, rounded up: a record that leaves a tier by them is never early for the database."""
    return -((_EPOCH - due_at) // _MILLISECOND)


def job_record(
    tenant_id: UUID, job_id: UUID, fence: int, priority: int, queue_id: int = 0, type_id: int = 0
) -> Envelope:
    """A job that may run now. `fence` is the row's."""
    record = Record(
        RecordKind.JOB, tenant_id, job_id, fence=fence, priority=priority, queue_id=queue_id, type_id=type_id
    )
    return _JOBS[priority], tenant_key(tenant_id), record.encode()


def retry_record(
    tenant_id: UUID,
    job_id: UUID,
    fence: int,
    priority: int,
    queue_id: int = 0,
    type_id: int = 0,
    *,
    due_at: datetime,
) -> Envelope:
    """A job that the delay tiers carry until `due_at`."""
    record = Record(
        RecordKind.JOB,
        tenant_id,
        job_id,
        fence=fence,
        due_ms=due_ms(due_at),
        priority=priority,
        queue_id=queue_id,
        type_id=type_id,
    )
    return _RETRIES, tenant_key(tenant_id), record.encode()


def delivery_record(tenant_id: UUID, event_id: UUID, endpoint_id: UUID, fence: int) -> Envelope:
    """A delivery that may be tried now."""
    record = Record(RecordKind.DELIVERY, tenant_id, event_id, endpoint_id, fence=fence)
    return _DELIVERIES_RETRY, tenant_key(tenant_id), record.encode()


def delivery_retry_record(
    tenant_id: UUID, event_id: UUID, endpoint_id: UUID, fence: int, *, due_at: datetime
) -> Envelope:
    """A delivery that the delay tiers carry until `due_at`."""
    record = Record(RecordKind.DELIVERY, tenant_id, event_id, endpoint_id, fence=fence, due_ms=due_ms(due_at))
    return _RETRIES, tenant_key(tenant_id), record.encode()


def event_records(event: JobEvent) -> list[Told]:
    """An ended job: its event, and a copy for people when it is a dead letter, with the reason in a header."""
    key, value = tenant_key(event.tenant_id), event.encode()
    told = [Told(topics.RESULTS.name, key, value, HEADERS)]
    if event.reason is not None:
        told.append(Told(topics.JOBS_DLQ.name, key, value, [*HEADERS, ("reason", event.reason.encode())]))
    return told


def dead_delivery_record(dead: DeadDelivery) -> Told:
    """A delivery that needs a person, with the reason in a header."""
    headers = [*HEADERS, ("reason", dead.reason.encode())]
    return Told(topics.DELIVERIES_DLQ.name, tenant_key(dead.tenant_id), dead.encode(), headers)


def topic_when_due(record: Record) -> str:
    """Where a record goes once its delay is over; its bytes stay as they are."""
    return _JOBS[record.priority] if record.kind is RecordKind.JOB else _DELIVERIES_RETRY
