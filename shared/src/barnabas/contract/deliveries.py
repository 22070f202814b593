"""Dead deliveries as the `deliveries.dlq` topic tells them: which webhook could not be delivered, and why.

The record is a copy for people; the dead letter itself is a row in Postgres, and a redrive works on that.
"""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from barnabas.contract.jobs import encode

SCHEMA: Final = 1


class DeadDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery whose schedule is used up, or whose receiver is gone."""

    schema: Literal[1] = SCHEMA
    id: UUID
    """The delivery's public id, the dead letter's `ref`."""
    tenant_id: UUID
    event_id: UUID
    """The `webhook-id` that the receiver would have seen."""
    endpoint_id: UUID
    job_id: UUID
    attempt: int
    reason: str
    error: str | None
    """How the last try ended."""
    last_status: int | None
    finished_at: datetime

    def encode(self) -> bytes:
        """The record's value."""
        return encode(self)
