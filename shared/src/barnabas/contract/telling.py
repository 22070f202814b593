"""What Kafka is told: the one place that turns committed facts into records, for each kind of outbox row.

Writer, relay and reconciler all come through here and so send the same bytes. Pure, and cheap enough for once a job.
Which topic and key a ready job's record gets is not said by its row alone: `barnabas.kafka.routes` knows.
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
from barnabas.contract.records import Record, RecordKind, encode_job
from barnabas.domain.spread import BUCKETS, bucket_of

Envelope = tuple[str, bytes, bytes]
"""An internal record, ready to be sent: topic, key, value. Internal topics carry no headers."""


class ReadyJob(NamedTuple):
    """The record of a job that may run now, before it has its topic and its key."""

    tenant_id: UUID
    job_id: UUID
    queue_id: int
    priority: int
    value: bytes


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
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
    """The key of a tenant's records, so that all of them share a partition, but for jobs of one who has too many."""
    return str(tenant_id).encode()


def job_key(tenant_id: UUID, job_id: UUID, buckets: int) -> bytes:
    """The key of a ready job's record: its tenant's, or while that is spread over buckets, one of them."""
    if buckets == 1:
        return tenant_key(tenant_id)
    return _bucket_keys(tenant_id, buckets)[bucket_of(job_id, buckets)]


# Hot tenants are few; up to 32 keys each.
@lru_cache(maxsize=500)
def _bucket_keys(tenant_id: UUID, buckets: int) -> tuple[bytes, ...]:
    return tuple(b"%b/%d" % (tenant_key(tenant_id), bucket) for bucket in range(buckets))


def job_keys(tenant_id: UUID, job_id: UUID) -> set[bytes]:
    """Every key that this job's record may have, however its tenant was spread when it was sent."""
    return {job_key(tenant_id, job_id, buckets) for buckets in BUCKETS}


def due_ms(due_at: datetime) -> int:
    """Unix milliseconds, rounded up: a record that leaves a tier by them is never early for the database."""
    return -((_EPOCH - due_at) // _MILLISECOND)


def job_record(
    tenant_id: UUID, job_id: UUID, fence: int, priority: int, queue_id: int = 0, type_id: int = 0
) -> ReadyJob:
    """A job that may run now. `fence` is the row's."""
    value = encode_job(tenant_id, job_id, fence=fence, priority=priority, queue_id=queue_id, type_id=type_id)
    return ReadyJob(tenant_id, job_id, queue_id, priority, value)


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
