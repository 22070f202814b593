"""Events: the facts on the `results` topic, and the webhook that a delivery carries.

An event's id is a UUIDv7 minted before the job's end was written and stored in the row that ends it; it is the
`webhook-id` too. Its timestamp is the id's own milliseconds, so a writer, the relay and the reconciler send the same
bytes.
"""

from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec

from barnabas.contract.jobs import JobView, encode
from barnabas.errors import MalformedRecordError

EVENT_TYPES = ("job.succeeded", "job.failed", "job.cancelled")
HEADERS = [("content-type", b"application/json")]


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A job ended. What it returned stays in Postgres; whoever needs it reads it there."""

    schema: Literal[1] = 1
    id: UUID
    type: Literal["job.succeeded", "job.failed", "job.cancelled"]
    tenant_id: UUID
    job_id: UUID
    job_type: str
    attempt: int
    fence: int
    reason: str | None = None
    """Why it is a dead letter, if it is one."""

    @property
    def timestamp(self) -> datetime:
        """When it happened, by the database's clock, to the millisecond."""
        return event_time(self.id)

    @property
    def key(self) -> bytes:
        """The record's key: the tenant."""
        return str(self.tenant_id).encode()

    def encode(self) -> bytes:
        """The record's value."""
        return encode(self)


_decoder = msgspec.json.Decoder(JobEvent)


def decode_event(value: bytes | None) -> JobEvent:
    """Read an event; raises `MalformedRecordError`."""
    try:
        return _decoder.decode(value or b"")
    except msgspec.MsgspecError as error:
        raise MalformedRecordError(f"not a job event: {error}") from error


def event_time(event_id: UUID) -> datetime:
    """The moment that a UUIDv7 was minted at."""
    return datetime.fromtimestamp((event_id.int >> 80) / 1000, UTC)


class Webhook(msgspec.Struct, frozen=True):
    """The body that an endpoint receives."""

    type: str
    timestamp: datetime
    data: JobView


def webhook_body(event_id: UUID, event_type: str, job: JobView) -> bytes:
    """The exact bytes that are signed and sent; equal for every attempt of a delivery."""
    return encode(Webhook(event_type, event_time(event_id), job))
