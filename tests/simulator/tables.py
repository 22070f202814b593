"""The model database's tables: rows are values, so a transaction is undone by remembering which rows there were."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

import msgspec

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.gates import Gate, Line, LineKind
from barnabas.domain.jobs import JobState
from barnabas.domain.ordering import OrderedLine

JobKey = tuple[UUID, UUID]
"""Tenant and job."""
DeliveryPlace = tuple[UUID, UUID, UUID]
"""Tenant, event and endpoint."""
NO_ENDPOINT = UUID(int=0)
EPOCH = datetime(2026, 5, 4, 12, tzinfo=UTC)
"""The database's time when the loop's is zero. At noon: a run of minutes stays within its day."""


def at(seconds: float) -> datetime:
    """The database's time at that moment of the loop."""
    return EPOCH + timedelta(seconds=seconds)


def seconds_of(moment: datetime) -> float:
    """The loop's time at that moment of the database."""
    return (moment - EPOCH).total_seconds()


class Job(msgspec.Struct, frozen=True):
    """An open job."""

    tenant: UUID
    job: UUID
    ready_at: datetime
    due_at: datetime | None
    type_id: int
    timeout_ms: int | None
    state: JobState
    priority: int
    queue_id: int
    max_attempts: int | None
    hooks: int
    worker: UUID | None = None
    started_at: datetime | None = None
    fence: int = 0
    attempt: int = 0
    losses: int = 0

    def is_ready(self, now: datetime) -> bool:
        """Whether a claim may take it."""
        if self.state is JobState.QUEUED:
            return True
        return self.state in (JobState.SCHEDULED, JobState.RETRYING) and self.due_at is not None and self.due_at <= now


class Payload(msgspec.Struct, frozen=True):
    """What was submitted."""

    job: UUID
    created_at: datetime
    run_at: datetime | None
    type_id: int
    timeout_ms: int | None
    priority: int
    queue_id: int
    max_attempts: int | None
    payload: bytes
    metadata: bytes | None
    retry: bytes | None
    ordering_key: str | None
    redrive_of: UUID | None = None


class Result(msgspec.Struct, frozen=True):
    """An ended job."""

    tenant: UUID
    job: UUID
    event: UUID
    worker: UUID | None
    started_at: datetime | None
    finished_at: datetime
    fence: int
    type_id: int
    state: JobState
    priority: int
    queue_id: int
    attempt: int
    losses: int
    reason: str | None
    result: bytes | None
    error: bytes | None


class Attempt(msgspec.Struct, frozen=True):
    """A claim that did not end its job."""

    tenant: UUID
    job: UUID
    attempt: int
    fence: int
    kind: AttemptKind
    started_at: datetime | None
    finished_at: datetime
    next_at: datetime | None


class Worker(msgspec.Struct, frozen=True):
    """A heartbeat row."""

    worker: UUID
    service: str
    type_ids: Sequence[int]
    queue_ids: Sequence[int]
    lease_until: datetime


class Batch(msgspec.Struct, frozen=True):
    """A lease batch; of deliveries where it has endpoints."""

    batch: UUID
    worker: UUID
    claimed_at: datetime
    tenants: Sequence[UUID]
    refs: Sequence[UUID]
    endpoints: Sequence[UUID] | None


class Timer(msgspec.Struct, frozen=True):
    """A due time."""

    kind: int
    fence: int
    due_at: datetime
    poll_at: datetime


class Seat(msgspec.Struct, frozen=True):
    """A parked job's row in `waiting`."""

    line: Line
    precedence: int
    seq: int
    woken_at: float | None = None


class LimitedScope(msgspec.Struct, frozen=True):
    """A row of `gates`."""

    gate: Gate
    crowded: bool = False


class OutboxRow(msgspec.Struct, frozen=True):
    """One flushed batch that Kafka must be told of."""

    created_at: datetime
    kind: int
    tenants: Sequence[UUID]
    refs: Sequence[UUID]
    endpoints: Sequence[UUID] | None
    fences: Sequence[int]


class DeadLetter(msgspec.Struct, frozen=True):
    """An open dead letter."""

    reason: str
    order_seq: int | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """A tenant's URL."""

    tenant: UUID
    endpoint: UUID
    schedule: tuple[float, ...]
    created_at: float
    event_types: tuple[str, ...] | None = None
    disabled_at: datetime | None = None
    deleted_at: datetime | None = None


class Delivery(msgspec.Struct, frozen=True):
    """One event to one endpoint; `state` is a number of `DeliveryState`."""

    delivery: UUID
    job: UUID
    worker: UUID | None
    state: int
    fence: int = 0
    attempt: int = 0
    due_at: datetime | None = None
    finished_at: datetime | None = None
    last_status: int | None = None
    error: str | None = None


class Holder(NamedTuple):
    """What an idempotency key stands for."""

    job: UUID
    fingerprint: bytes


@dataclass(slots=True)
class Tables:
    """All of them. Every value in them is a value, but for the lines, which are copied."""

    jobs: dict[JobKey, Job] = field(default_factory=dict)
    payloads: dict[JobKey, Payload] = field(default_factory=dict)
    results: dict[JobKey, tuple[Result, ...]] = field(default_factory=dict)
    """More than one would be a job that ended twice."""
    attempts: dict[tuple[UUID, UUID, int, int], Attempt] = field(default_factory=dict)
    workers: dict[UUID, Worker] = field(default_factory=dict)
    batches: dict[UUID, Batch] = field(default_factory=dict)
    cancels: dict[tuple[UUID, UUID, UUID], int] = field(default_factory=dict)
    timers: dict[DeliveryPlace, Timer] = field(default_factory=dict)
    gates: dict[tuple[UUID, LineKind, int], LimitedScope] = field(default_factory=dict)
    admissions: dict[UUID, Gate] = field(default_factory=dict)
    waiting: dict[JobKey, Seat] = field(default_factory=dict)
    backlogs: dict[tuple[UUID, int], bool] = field(default_factory=dict)
    outbox: dict[int, OutboxRow] = field(default_factory=dict)
    keys: dict[tuple[UUID, str], Holder] = field(default_factory=dict)
    redrives: dict[JobKey, UUID] = field(default_factory=dict)
    dead: dict[tuple[UUID, int, UUID], DeadLetter] = field(default_factory=dict)
    endpoints: dict[tuple[UUID, UUID], Endpoint] = field(default_factory=dict)
    deliveries: dict[DeliveryPlace, Delivery] = field(default_factory=dict)
    leaders: dict[str, tuple[UUID, datetime]] = field(default_factory=dict)
    kafka_topics: dict[str, tuple[str, str]] = field(default_factory=dict)
    intake: dict[tuple[str, int], int] = field(default_factory=dict)
    lines: dict[tuple[UUID, str], OrderedLine[UUID]] = field(default_factory=dict)
    last_seq: int = 0
    """Of `waiting`."""
    last_outbox: int = 0

    def remembered(self) -> "Tables":
        """What there is now, to come back to."""
        copies: dict[str, Any] = {
            one.name: dict(value) for one in fields(self) if isinstance(value := getattr(self, one.name), dict)
        }
        copies["lines"] = {
            key: replace(line, _seats=dict(line._seats), _orders=dict(line._orders)) for key, line in self.lines.items()
        }
        return replace(self, **copies)

    def restore(self, before: "Tables") -> None:
        """Be as it was then."""
        for one in fields(self):
            setattr(self, one.name, getattr(before, one.name))


class Row(tuple[Any, ...]):
    """A row of an answer: by place, or by name."""

    __slots__ = ()
    names: ClassVar[dict[str, int]] = {}

    def __getitem__(self, place: Any) -> Any:
        return tuple.__getitem__(self, self.names[place] if type(place) is str else place)


def row_type(*names: str) -> type[Row]:
    """Rows with these columns."""
    return type("NamedRow", (Row,), {"names": {name: place for place, name in enumerate(names)}, "__slots__": ()})
