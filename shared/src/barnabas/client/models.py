"""What the API answers, as values.

Fields that a newer server adds are ignored and those that an older one lacks have defaults, so client and server need
not be of one release. Times are aware and in UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec

from barnabas.domain.backoff import RetryPolicy

T = TypeVar("T")

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
"""The states in which a job stays for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to submit. `payload` and `metadata` may hold pydantic models, datetimes, UUIDs and the like."""

    type: str
    payload: Any = None
    idempotency_key: str | None = None
    priority: int | Literal["low", "medium", "high", "critical"] | None = None
    queue: str | None = None
    run_at: datetime | None = None
    delay_seconds: float | None = None
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    metadata: Mapping[str, Any] | None = None
    ordering_key: str | None = None


class FieldError(msgspec.Struct, frozen=True):
    """One value that is wrong, and where (a JSON pointer)."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused (RFC 9457). `code` never changes its meaning."""

    status: int
    code: str = "unknown"
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    retryable: bool = False
    errors: list[FieldError] = []


class JobError(msgspec.Struct, frozen=True):
    """How a job's last attempt failed."""

    code: str
    message: str
    retryable: bool = False


class Progress(msgspec.Struct, frozen=True):
    """The latest report of a running attempt."""

    percent: float
    message: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job. What an answer leaves out (that to a submission has little more than the id) is None."""

    id: UUID
    status: str
    type: str | None = None
    priority: int | None = None
    queue: str | None = None
    attempt: int = 0
    max_attempts: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_at: datetime | None = None
    result: Any = None
    error: JobError | None = None
    metadata: dict[str, Any] | None = None
    progress: Progress | None = None
    redrive_of: UUID | None = None
    cancel_requested: bool = False
    ordering_key: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended, for ever."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was accepted, or that an equal submission with the same idempotency key had made before."""

    job: Job
    is_replayed: bool

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self.job.id


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job of a batch: `accepted` and `replayed` have an id, `rejected` a problem."""

    verdict: str
    id: UUID | None = None
    status: str | None = None
    problem: Problem | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's timeline; only those of kind `attempt` count towards `max_attempts`."""

    kind: str
    attempt: int
    outcome: str
    worker_id: UUID | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_at: datetime | None = None
    error: JobError | None = None


class EndpointCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an endpoint."""

    attempt: int
    started_at: datetime
    duration_ms: int
    status: int | None = None
    error: str | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one endpoint."""

    id: UUID
    status: str
    event_id: UUID | None = None
    endpoint_id: UUID | None = None
    job_id: UUID | None = None
    attempt: int = 0
    created_at: datetime | None = None
    due_at: datetime | None = None
    finished_at: datetime | None = None
    last_status: int | None = None
    error: str | None = None
    attempts: list[EndpointCall] = []


class Timeline(msgspec.Struct, frozen=True):
    """A job's attempts, oldest first, and the deliveries of its end."""

    items: list[Attempt]
    deliveries: list[Delivery] = []


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs a person: a failed job, or a delivery whose schedule is used up."""

    kind: str
    id: UUID
    reason: str
    at: datetime
    job: Job | None = None
    delivery: Delivery | None = None


class Redriven(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters matched, and how many were sent round again."""

    matched: int
    done: int
    dry_run: bool = False
    last_at: datetime | None = None
    """With a rate: when the last of them is due."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that hears of ended jobs. `secret` is only in the answer to its creation."""

    id: UUID
    url: str
    event_types: list[str] | None = None
    retry_schedule_seconds: list[float] | None = None
    headers: dict[str, str] | None = None
    status: str = "enabled"
    disabled_reason: str | None = None
    disabled_at: datetime | None = None
    created_at: datetime | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        # Neither the secret nor the headers, which may hold credentials: what is printed is logged sooner or later.
        return f"Endpoint(id={self.id!r}, url={self.url!r}, status={self.status!r})"


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant."""

    id: UUID
    name: str
    created_at: datetime | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `key` is only in the answer to its creation."""

    id: UUID
    prefix: str
    name: str = ""
    created_at: datetime | None = None
    revoked_at: datetime | None = None
    key: str | None = None

    def __repr__(self) -> str:
        # Without the key itself, as above.
        return f"ApiKey(id={self.id!r}, prefix={self.prefix!r}, name={self.name!r})"


class TypeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one job type of a tenant; None is none."""

    concurrency: int | None = None
    starts_per_minute: int | None = None


class TypeUse(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a type's limits is used; None where there is none. `starts` are of the last 60 seconds."""

    running: int | None = None
    starts: int | None = None


class LimitsUse(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a tenant's limits is used; None where there is none; but `running` of the last 60 seconds."""

    running: int | None = None
    starts: int | None = None
    submits: int | None = None
    types: dict[str, TypeUse] = {}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's limits; None is none."""

    concurrency: int | None = None
    starts_per_minute: int | None = None
    submits_per_minute: int | None = None
    weight: int = 1
    types: dict[str, TypeLimits] = {}
    use: LimitsUse = LimitsUse()


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue, and the parts of its workers' slots by priority: `{"critical": 25, "high": 25, "medium": 30, ...}`."""

    name: str
    shares: dict[str, int] = {}


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job isn't running: the first cause, in one sentence, with what is behind it in `details`.

    `until` is when the cause ends by itself, where that is known; it never ends before.
    """

    id: UUID
    status: str
    cause: str
    message: str
    until: datetime | None = None
    details: dict[str, Any] = {}


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list, newest first; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None = None
