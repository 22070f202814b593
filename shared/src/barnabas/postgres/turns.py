"""A turn at the database: endings, releases, wake-ups and claims as values, one statement for all of them.

Every list is put into key order here, because that is the order in which rows are locked everywhere. What there is once
a job is a msgspec struct: a dataclass costs five times as much to make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import msgspec

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Session, by_key


class Verdict(IntEnum):
    """What a claim said of a record. Every one of them is durable, so the record's offset may be committed."""

    CLAIMED = 1
    PARKED = 2
    EARLY = 3
    UNHANDLED = 4
    STALE = 5


class ClaimedJob(msgspec.Struct, frozen=True, gc=False):
    """A job that this worker holds now. `payload`, `metadata` and `retry` are JSON bytes."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    attempt: int
    max_attempts: int | None
    losses: int
    hooks: int
    type_id: int
    priority: int
    queue_id: int
    timeout_ms: int | None
    ready_at: datetime
    started_at: datetime
    payload: bytes
    metadata: bytes | None
    retry: bytes | None
    trace: bytes | None


@dataclass(frozen=True, slots=True)
class Claims:
    """The answer to a claim: the jobs held now, and how many records got which other verdict."""

    claimed: list[ClaimedJob]
    verdicts: dict[Verdict, int]


class Finishing(msgspec.Struct, frozen=True, gc=False):
    """A held job that ends: what is stored of it, and the event that will tell it."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    state: JobState
    event_id: UUID
    result: bytes | None = None
    error: bytes | None = None
    reason: str | None = None


class Releasing(msgspec.Struct, frozen=True, gc=False):
    """A held job that goes back: `due_at` None is at once."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    kind: AttemptKind
    due_at: datetime | None = None
    error: bytes | None = None


class Placed(Protocol):
    """Whatever names a job by its key."""

    @property
    def tenant_id(self) -> UUID:
        """Whose."""
        ...

    @property
    def job_id(self) -> UUID:
        """Which."""
        ...


class WokenJob(msgspec.Struct, frozen=True, gc=False):
    """A job that may start now because another has ended: its gate has room, or it leads its ordering key's line."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    type_id: int
    priority: int
    queue_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Jobs to be claimed as one lease batch."""

    batch_id: UUID
    keys: Sequence[tuple[UUID, UUID]]
    """(tenant_id, job_id); may be empty where only woken jobs are taken."""
    types: Mapping[int, int]
    """The numbers of the types that are handled here, each with its time-out in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one transaction does: jobs that leave a worker's hands, and jobs that come into them."""

    worker_id: UUID
    """Whoever holds the jobs that leave, and will hold those that come."""
    told: Sequence[int] = ()
    """Outbox rows that Kafka has acknowledged."""
    finishing: Sequence[Finishing] = ()
    releasing: Sequence[Releasing] = ()
    ordered: bool = False
    """Whether one of the jobs that end has an ordering key."""
    hold: bool = False
    """Whether a dead letter holds the line of its ordering key."""
    done: Sequence[UUID] = ()
    """Lease batches with nothing left in them."""
    wake: Sequence[UUID] = ()
    """Further tenants whose gates may have room."""
    spare: int = 0
    """How many woken jobs may be claimed at once, beyond the claim's keys."""
    keep: bool = False
    """Whether other woken jobs of handled types are left to the caller; else Kafka is told."""
    claim: Claim | None = None


@dataclass(slots=True)
class Turned:
    """What it did."""

    claims: Claims | None = None
    closed: frozenset[UUID] = frozenset()
    """Jobs that this call ended."""
    already: frozenset[UUID] = frozenset()
    """Jobs that the first try of this very call had ended, whose answer was lost."""
    ended_outbox_id: int | None = None
    released: frozenset[UUID] = frozenset()
    ready_outbox_id: int | None = None
    """Tells the released jobs that may run at once."""
    later_outbox_id: int | None = None
    """Tells the released jobs that travel through the delay topics."""
    cancel_wanted: frozenset[UUID] = frozenset()
    """Left as they are because their cancel was asked for: they are to be ended as cancelled instead."""
    told: dict[int, list[WokenJob]] = field(default_factory=dict)
    """Woken jobs by the outbox row that tells them."""
    kept: list[WokenJob] = field(default_factory=list)
    """Woken jobs that are the caller's to claim."""


async def take_turn(session: Session, turn: Turn) -> Turned:
    """Do all of it in one round trip and one commit; raises `LeaseOverError` when a claim meets no lease any more."""
    claim = turn.claim
    keys = sorted(claim.keys) if claim is not None else []
    rows = await session.fetch(
        "turn_jobs",
        turn.worker_id,
        turn.told,
        *_finishing_columns(turn.finishing),
        turn.ordered,
        turn.hold,
        *_releasing_columns(turn.releasing),
        turn.done,
        turn.wake,
        turn.spare,
        turn.keep,
        None if claim is None else claim.batch_id,
        [key[0] for key in keys],
        [key[1] for key in keys],
        [] if claim is None else list(claim.types.keys()),
        [] if claim is None else list(claim.types.values()),
    )
    return _turned(rows, None if claim is None else len(keys))


def _finishing_columns(jobs: Sequence[Finishing]) -> tuple[list[Any], ...]:
    ordered = [jobs[i] for i in by_key([(job.tenant_id, job.job_id) for job in jobs])]
    errors = [job.error for job in ordered]
    reasons = [job.reason for job in ordered]
    return (
        [job.tenant_id for job in ordered],
        [job.job_id for job in ordered],
        [job.fence for job in ordered],
        [job.state for job in ordered],
        [job.result for job in ordered],
        # A column that holds nothing goes in empty: encoding an array costs 0.3 us a job.
        errors if any(errors) else [],
        reasons if any(reasons) else [],
        [job.event_id for job in ordered],
    )


def _releasing_columns(jobs: Sequence[Releasing]) -> tuple[list[Any], ...]:
    if not jobs:
        return ([],) * 6
    ordered = [jobs[i] for i in by_key([(job.tenant_id, job.job_id) for job in jobs])]
    return (
        [job.tenant_id for job in ordered],
        [job.job_id for job in ordered],
        [job.fence for job in ordered],
        [job.kind for job in ordered],
        [job.due_at for job in ordered],
        [job.error for job in ordered],
    )


# Verdicts of turn_jobs_v1 that aren't about a record.
_TOLD, _KEPT, _ENDED, _HAD_ENDED, _RELEASED, _READY, _LATER, _CANCEL_WANTED = 6, 7, 10, 11, 12, 13, 14, 15


def _turned(rows: Sequence[asyncpg.Record], asked: int | None) -> Turned:
    turned = Turned()
    claimed: list[ClaimedJob] = []
    verdicts: dict[Verdict, int] = {}
    for row in rows:
        # By position: the order is the function's, and reading by name costs twice as much.
        verdict = row[0]
        if verdict == Verdict.CLAIMED:
            claimed.append(ClaimedJob(*row[1:18]))
        elif verdict in (Verdict.PARKED, Verdict.EARLY, Verdict.UNHANDLED):
            verdicts[Verdict(verdict)] = len(row["ids"])
        elif verdict in (_TOLD, _KEPT):
            woken = WokenJob(row[1], row[2], row[3], row["type_id"], row["priority"], row["queue_id"])
            (turned.kept if verdict == _KEPT else turned.told.setdefault(row["outbox"], [])).append(woken)
        elif verdict == _ENDED:
            turned.closed, turned.ended_outbox_id = frozenset(row["ids"]), row["outbox"]
        elif verdict == _HAD_ENDED:
            turned.already = frozenset(row["ids"])
        elif verdict == _RELEASED:
            turned.released = frozenset(row["ids"])
        elif verdict == _READY:
            turned.ready_outbox_id = row["outbox"]
        elif verdict == _LATER:
            turned.later_outbox_id = row["outbox"]
        elif verdict == _CANCEL_WANTED:
            turned.cancel_wanted |= frozenset(row["ids"])
    if asked is not None:
        verdicts[Verdict.STALE] = max(0, asked - len(claimed) - sum(verdicts.values()))
        turned.claims = Claims(claimed, verdicts)
    return turned


async def park_backlog(session: Session, wanted: Sequence[tuple[UUID, UUID, int]]) -> None:
    """Put ready jobs, as (tenant_id, job_id, queue_id) in their order, into their tenants' backlogs."""
    tenants, jobs, queues = zip(*wanted, strict=True)
    await session.execute("park_backlog", list(tenants), list(jobs), list(queues))


async def fetch_backlog(session: Session, queue_ids: Sequence[int], *, tenants: int, each: int) -> list[WokenJob]:
    """Up to `each` jobs from the backlogs of up to `tenants` tenants in these queues, for the caller to claim."""
    return [WokenJob(*row) for row in await session.fetch("fetch_backlog", list(queue_ids), tenants, each)]


async def give_back_woken(session: Session, woken: Sequence[Placed]) -> None:
    """Jobs that were woken for this process, and that it won't claim: whoever sweeps next wakes them again."""
    if woken:
        await session.execute("give_back_woken", [one.tenant_id for one in woken], [one.job_id for one in woken])
