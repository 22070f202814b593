"""The shapes of the HTTP interface besides the job itself: what callers send and what they get.

One struct each; the OpenAPI document is made from them. Bodies that come in refuse unknown fields.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from barnabas.contract.jobs import JobView
from barnabas.contract.problems import Problem

PAGE_LIMIT_MAX = 500
PAGE_LIMIT_DEFAULT = 50
WAIT_SECONDS_MAX = 60.0

EventType = Literal["job.succeeded", "job.failed", "job.cancelled"]
DlqKind = Literal["jobs", "deliveries"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one job of a batch: `accepted` and `replayed` have an id and a status, `rejected` a problem."""

    verdict: Literal["accepted", "replayed", "rejected"]
    id: UUID | None = None
    status: str | None = None
    problem: Problem | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """One verdict for each job that was handed in, in order."""

    items: list[Verdict]


class JobPage(msgspec.Struct, frozen=True):
    """A page of jobs, newest first."""

    items: list[JobView]
    next_cursor: str | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's timeline. Only lines of kind `attempt` count towards `max_attempts`."""

    kind: Literal["attempt", "loss", "hand_back", "snooze"]
    attempt: int
    """Its number, or that of the attempt which a loss, hand-back or snooze cut short."""
    outcome: str
    """running, succeeded, failed, cancelled, retried; for other kinds the kind again."""
    worker_id: UUID | None
    started_at: datetime | None
    finished_at: datetime | None
    next_at: datetime | None
    """When the job might run again; null for at once."""
    error: Raw


class CallView(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an endpoint."""

    attempt: int
    started_at: datetime
    duration_ms: int
    status: int | None
    error: str | None


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one endpoint."""

    id: UUID
    event_id: UUID
    endpoint_id: UUID
    job_id: UUID
    status: str
    attempt: int
    created_at: datetime
    due_at: datetime | None
    finished_at: datetime | None
    last_status: int | None
    error: str | None
    attempts: list[CallView] | UnsetType = UNSET


class TimelineAnswer(msgspec.Struct, frozen=True):
    """A job's attempts, oldest first, and the deliveries of its end."""

    items: list[AttemptView]
    deliveries: list[DeliveryView]


class DeliveryPage(msgspec.Struct, frozen=True):
    """A page of deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs a person: a job that failed, or a delivery whose schedule is used up."""

    kind: DlqKind
    id: UUID
    """The job's id, or the delivery's."""
    reason: str
    at: datetime
    job: JobView | UnsetType = UNSET
    delivery: DeliveryView | UnsetType = UNSET


class DeadLetterPage(msgspec.Struct, frozen=True):
    """A page of open dead letters, newest first."""

    items: list[DeadLetterView]
    next_cursor: str | None


class DlqFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters."""

    kind: DlqKind
    ids: Annotated[list[UUID], Meta(min_length=1, max_length=100)]


class RedriveInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Send dead letters round again, or count them first."""

    filter: DlqFilter
    dry_run: bool = False
    rate: Annotated[float, Meta(ge=0.01, le=10_000)] | None = None
    """How many a second at the most, counted behind what the tenant has redriven at a rate before; none: at once."""


class RedriveAnswer(msgspec.Struct, frozen=True):
    """How many dead letters matched, and how many were sent round again."""

    matched: int
    done: int
    dry_run: bool
    last_at: datetime | UnsetType = UNSET
    """With a rate: when the last of them is due."""


class EndpointInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A URL that wants to hear of ended jobs; without `event_types` of all of them."""

    url: str
    event_types: Annotated[list[EventType], Meta(min_length=1, max_length=3)] | None = None
    retry_schedule_seconds: list[float] | None = None
    headers: dict[str, str] | None = None


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's endpoint. Its secret is shown once, in the answer to its creation."""

    id: UUID
    url: str
    event_types: list[str] | None
    retry_schedule_seconds: list[float] | None
    headers: Raw
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    disabled_at: datetime | None
    created_at: datetime
    secret: str | UnsetType = UNSET


class EndpointPage(msgspec.Struct, frozen=True):
    """A page of endpoints, newest first."""

    items: list[EndpointView]
    next_cursor: str | None


class TenantInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new tenant."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]


class TenantView(msgspec.Struct, frozen=True):
    """A tenant."""

    id: UUID
    name: str
    created_at: datetime


class TenantPage(msgspec.Struct, frozen=True):
    """A page of tenants, newest first."""

    items: list[TenantView]
    next_cursor: str | None


class KeyInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new API key; the name is for people."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `key` is shown once, in the answer to its creation."""

    id: UUID
    name: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None
    key: str | UnsetType = UNSET


class KeyPage(msgspec.Struct, frozen=True):
    """A page of keys, newest first."""

    items: list[KeyView]
    next_cursor: str | None
