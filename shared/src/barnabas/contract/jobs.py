"""A job as tenants see it: the same JSON from `GET /v1/jobs/{id}` and inside a webhook.

Results, errors and metadata are the bytes that were stored, passed through without being decoded.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class JobError(msgspec.Struct, frozen=True):
    """How a failed job's last attempt ended."""

    code: str
    message: str
    retryable: bool


class JobProgress(msgspec.Struct, frozen=True):
    """The latest report of a running attempt."""

    percent: float
    message: str | None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """One job."""

    id: UUID
    type: str
    status: str
    priority: int
    queue: str
    attempt: int
    max_attempts: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    run_at: datetime | None
    result: msgspec.Raw
    error: msgspec.Raw
    metadata: msgspec.Raw
    progress: JobProgress | None = None
    redrive_of: UUID | None = None
    cancel_requested: bool = False
    ordering_key: str | None = None


_NULL = msgspec.Raw(b"null")
_encoder = msgspec.json.Encoder(uuid_format="canonical")


def raw(stored: bytes | None) -> msgspec.Raw:
    """Stored JSON bytes as they are; None is JSON's null."""
    return _NULL if stored is None else msgspec.Raw(stored)


def encode(value: Any) -> bytes:
    """JSON bytes of a view, or of anything that holds views."""
    return _encoder.encode(value)
