"""A worker's turn at the database: claims, finishes and releases as values, each one statement for the whole batch.

Every list is put into key order here, because that is the order in which rows are locked everywhere. What there is once
a job is a msgspec struct: a dataclass costs five times as much to make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any
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


@dataclass(frozen=True, slots=True)
class Finishes:
    """What this call ended, or its own first try had; the outbox row that tells it; whether gates were locked."""

    closed: frozenset[UUID]
    outbox_id: int | None
    gated: bool


class Releasing(msgspec.Struct, frozen=True, gc=False):
    """A held job that goes back: `due_at` None is at once."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    kind: AttemptKind
    due_at: datetime | None = None
    error: bytes | None = None


@dataclass(frozen=True, slots=True)
class Releases:
    """Which of them went back, which are to be cancelled instead, and the outbox rows for those ready now and later."""

    released: frozenset[UUID]
    cancel_wanted: frozenset[UUID]
    ready_outbox_id: int | None
    later_outbox_id: int | None
    gated: bool


class WokenJob(msgspec.Struct, frozen=True, gc=False):
    """A parked job whose gate has room again; the caller claims it or tells Kafka, in the same transaction."""

    tenant_id: UUID
    job_id: UUID
    fence: int
    type_id: int
    priority: int
    queue_id: int


async def claim_jobs(
    session: Session, worker_id: UUID, batch_id: UUID, keys: Sequence[tuple[UUID, UUID]], types: Mapping[int, int]
) -> Claims:
    """Claim these (tenant_id, job_id); raises `LeaseOverError` when the worker has no lease any more.

    `types` are the numbers of the types that are handled here, each with its time-out in milliseconds.
    """
    ordered = sorted(keys)
    rows = await session.fetch(
        "claim_jobs",
        worker_id,
        batch_id,
        [key[0] for key in ordered],
        [key[1] for key in ordered],
        list(types.keys()),
        list(types.values()),
    )
    return _claims(rows, len(ordered))


async def finish_jobs(
    session: Session, worker_id: UUID, jobs: Sequence[Finishing], *, batches: Sequence[UUID] = ()
) -> Finishes:
    """End held jobs; `batches` are lease batches that are done with then."""
    row = await session.fetchrow("finish_jobs", worker_id, *_finishing_columns(jobs), batches)
    assert row is not None
    return Finishes(frozenset(row["closed"] or ()) | frozenset(row["already"] or ()), row["outbox"], row["gated"])


@dataclass(frozen=True, slots=True)
class Turn:
    """What a worker's turn writes: endings and a claim."""

    worker_id: UUID
    finishing: Sequence[Finishing]
    batches: Sequence[UUID]
    """Lease batches that are done with."""
    told: Sequence[int]
    """Outbox rows that Kafka has acknowledged."""
    batch_id: UUID
    """Of the claim."""
    keys: Sequence[tuple[UUID, UUID]]
    """(tenant_id, job_id) to claim."""
    types: Mapping[int, int]
    """As for `claim_jobs`."""


async def turn_jobs(session: Session, turn: Turn) -> tuple[Finishes, Claims]:
    """Finish and claim in one round trip and one commit; raises `LeaseOverError` as `claim_jobs` does.

    For turns in which no job holds a gate's place: nobody is woken.
    """
    ordered = sorted(turn.keys)
    rows = await session.fetch(
        "turn_jobs",
        turn.worker_id,
        *_finishing_columns(turn.finishing),
        turn.batches,
        turn.told,
        turn.batch_id,
        [key[0] for key in ordered],
        [key[1] for key in ordered],
        list(turn.types.keys()),
        list(turn.types.values()),
    )
    finishes = Finishes(frozenset(), None, gated=False)
    if turn.finishing:
        first = rows.pop(0)
        closed = frozenset(first["closed"] or ()) | frozenset(first["already"] or ())
        finishes = Finishes(closed, first["outbox"], gated=False)
    return finishes, _claims(rows, len(ordered))


async def release_jobs(
    session: Session, worker_id: UUID, jobs: Sequence[Releasing], *, batches: Sequence[UUID] = ()
) -> Releases:
    """Let go of held jobs that did not end; `batches` are lease batches that are done with then."""
    ordered = [jobs[i] for i in by_key([(job.tenant_id, job.job_id) for job in jobs])]
    row = await session.fetchrow(
        "release_jobs",
        worker_id,
        [job.tenant_id for job in ordered],
        [job.job_id for job in ordered],
        [job.fence for job in ordered],
        [job.kind for job in ordered],
        [job.due_at for job in ordered],
        [job.error for job in ordered],
        batches,
    )
    assert row is not None
    return Releases(
        frozenset(row["released"] or ()),
        frozenset(row["wanted"] or ()),
        row["ready"],
        row["later"],
        row["gated"],
    )


async def wake_waiting(session: Session, tenant_ids: Sequence[UUID]) -> list[WokenJob]:
    """The next parked jobs of these tenants; in the transaction that locked their gates."""
    return [WokenJob(*row) for row in await session.fetch("wake_waiting", list(tenant_ids))]


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


def _claims(rows: Sequence[asyncpg.Record], asked: int) -> Claims:
    claimed = []
    verdicts: dict[Verdict, int] = {}
    for row in rows:
        # By position: the order is the function's, and reading by name costs twice as much.
        verdict = row[0]
        if verdict == Verdict.CLAIMED:
            claimed.append(ClaimedJob(*row[1:13], *row[14:19]))
        else:
            verdicts[Verdict(verdict)] = verdicts.get(Verdict(verdict), 0) + 1
    verdicts[Verdict.STALE] = asked - len(rows)
    return Claims(claimed, verdicts)
