"""Accepting jobs: what one flush of ingest writes, in one round trip and one commit.

Columns go in as arrays, and a column that holds nothing goes in empty: most jobs have no time-out, no metadata, no due
time, and each array costs 0.3 us a job to encode.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntFlag
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from barnabas.errors import DatabaseUnavailableError, RejectedError, SupersededError, TransientError
from barnabas.postgres.database import Session


class Submission(NamedTuple):
    """A valid job before it is written, in the order of the arrays. Payload, metadata and retry are JSON bytes.

    A named tuple, because a flush turns hundreds of them into columns with one `zip`.
    """

    tenant_id: UUID
    job_id: UUID
    type_id: int
    priority: int
    queue_id: int
    timeout_ms: int | None
    max_attempts: int | None
    due_at: datetime | None
    payload: bytes
    metadata: bytes | None
    retry: bytes | None
    trace: bytes | None
    ordering_key: str | None = None


class KeyHolder(msgspec.Struct, frozen=True, gc=False):
    """The job that an idempotency key stands for; `made` when it is the one that was just submitted.

    A msgspec struct, because a dataclass costs five times as much to make.
    """

    job_id: UUID
    fingerprint: bytes
    made: bool


class Mark(IntFlag):
    """What the database says of a job besides that it is stored; most get none."""

    BLOCKED = 1
    """Others with its ordering key are before it: it isn't told before its turn."""
    ORDERED = 2
    """Stands in a line."""
    PARKED = 128
    """Went behind its tenant's backlog, from where workers fetch it: it isn't told."""
    REFUSED = 1024
    """Above its tenant's rate: it isn't stored."""

    @property
    def is_untold(self) -> bool:
        """Whether Kafka hears nothing of the job."""
        return bool(self & (Mark.BLOCKED | Mark.PARKED | Mark.REFUSED))


@dataclass(frozen=True, slots=True)
class Rate:
    """What is left of a tenant's submissions after a flush: how many more fit now, and when one more will."""

    allowed: int
    window_seconds: float
    room: int
    next_seconds: float

    @property
    def next_whole_seconds(self) -> int:
        """Rounded up: whoever waits that long isn't early."""
        return max(1, math.ceil(self.next_seconds))


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a flush. Jobs are named by their place in it."""

    outbox_id: int | None
    """The row that tells Kafka; None when there is nothing to tell."""
    marks: Mapping[int, Mark]
    """Only of those with something to say."""
    rates: Mapping[UUID, Rate]
    """By tenant; only of those with a limit."""
    holders: Sequence[KeyHolder | None] = field(default=())
    """Who holds each job's key; None where it was cleaned away at this moment, or the job was refused.

    Empty where no job has a key.
    """

    def error_of(self, job: Submission, place: int) -> "RateLimitedError | None":
        """Why that job was not stored, if its tenant's rate refused it."""
        if not self.marks or not self.marks.get(place, Mark(0)) & Mark.REFUSED:
            return None
        return RateLimitedError(self.rates[job.tenant_id])


class RateLimitedError(TransientError):
    """The tenant submits more than its limit allows."""

    code = "rate_limited"

    def __init__(self, rate: Rate) -> None:
        super().__init__(
            f"{rate.allowed} jobs in {rate.window_seconds:g} seconds are allowed;"
            f" the next one fits in {rate.next_whole_seconds} seconds"
        )
        self.rate = rate


class UnstorableError(RejectedError):
    """Postgres refuses to store this as it is."""

    code = "unstorable"


class IntakeMovedError(SupersededError):
    """A newer owner of the partition has stored these records."""

    code = "intake_moved"


def is_open(session: Session) -> bool:
    """Whether a connection that is held between flushes can still be used, as far as is known without asking."""
    try:
        return not session.connection.is_closed()
    except asyncpg.InterfaceError:
        return False  # the pool has taken it back, because it was lost


async def accept_jobs(session: Session, jobs: Sequence[Submission], *, told: Sequence[int]) -> Accepted:
    """Write a flush: those jobs that their tenants' rates let through, the first of each.

    `told` are outbox rows whose records the broker has acknowledged: they go with the same commit. Raises
    `UnstorableError` when at least one of the jobs can't be stored; then none is.
    """
    with _unstorable():
        row = await session.fetchrow("accept_jobs", *_columns(jobs), told)
    assert row is not None, "the function gives one row"
    return Accepted(row["outbox"], _marks(row["marks"]), _rates(row))


async def accept_keyed_jobs(
    session: Session, jobs: Sequence[Submission], keys: Sequence[tuple[str, bytes] | None]
) -> Accepted:
    """Write those jobs whose idempotency key nobody holds, and those without one. `keys` are key and fingerprint.

    Waits for other transactions that are inserting the same keys. Only what is new counts towards a tenant's rate.
    Raises `UnstorableError` as `accept_jobs` does.
    """
    names = [None if key is None else key[0] for key in keys]
    fingerprints = [None if key is None else key[1] for key in keys]
    with _unstorable():
        row = await session.fetchrow("accept_keyed_jobs", names, fingerprints, *_columns(jobs))
    assert row is not None, "the function gives one row"
    marks = _marks(row["marks"])
    if row["holders"] is None:
        holders: list[KeyHolder | None] = [
            KeyHolder(job.job_id, fingerprint or b"", made=True)
            for job, fingerprint in zip(jobs, fingerprints, strict=True)
        ]
        return Accepted(row["outbox"], marks, _rates(row), holders)
    holders = [
        None
        if holder is None or marks.get(place, Mark(0)) & Mark.REFUSED
        else KeyHolder(holder, fingerprint or b"", made=holder == job.job_id)
        for place, (job, holder, fingerprint) in enumerate(zip(jobs, row["holders"], row["fingerprints"], strict=True))
    ]
    return Accepted(row["outbox"], marks, _rates(row), holders)


async def read_intake_offsets(session: Session, topic_id: str, partitions: Sequence[int]) -> dict[int, int]:
    """How far these partitions are stored: the next offset of each, 0 when nothing of it is."""
    rows = await session.fetch("read_intake_offsets", topic_id, partitions)
    stored = {row["partition"]: row["next_offset"] for row in rows}
    return {partition: stored.get(partition, 0) for partition in partitions}


async def move_intake_offsets(session: Session, topic_id: str, moves: Mapping[int, tuple[int, int]]) -> None:
    """Note, inside the transaction that stores the records, how far partitions are stored: from where to where.

    Raises `IntakeMovedError` when one of them isn't where the caller read it: someone newer owns it.
    """
    partitions = sorted(moves)
    rows = await session.fetch(
        "move_intake_offsets",
        topic_id,
        partitions,
        [moves[partition][0] for partition in partitions],
        [moves[partition][1] for partition in partitions],
    )
    if len(rows) < len(partitions):
        raise IntakeMovedError


_NO_MARKS: Mapping[int, Mark] = {}
_NO_RATES: Mapping[UUID, Rate] = {}


def _marks(marks: Sequence[int | None] | None) -> Mapping[int, Mark]:
    if marks is None:
        return _NO_MARKS
    return {place: Mark(mark) for place, mark in enumerate(marks) if mark}


def _rates(row: asyncpg.Record) -> Mapping[UUID, Rate]:
    if row["tenants"] is None:
        return _NO_RATES
    columns = (row["tenants"], row["allowed"], row["windows"], row["rooms"], row["seconds"])
    return {
        tenant: Rate(allowed, window, room, next_seconds or 0.0)
        for tenant, allowed, window, room, next_seconds in zip(*columns, strict=True)
    }


def _columns(jobs: Sequence[Submission]) -> Iterator[Sequence[Any]]:
    # `any` is false for a column of None or of zeros: the statement takes a missing queue for queue 0.
    for at, column in enumerate(zip(*jobs, strict=True)):
        if at in _SHARED:
            # The same for all in most flushes: one value instead of an array spares 0.2 us a job for each of them.
            yield column[:1] if column.count(column[0]) == len(column) else column
        else:
            yield column if at in _NEEDED or any(column) else ()


_SHARED = frozenset(Submission._fields.index(name) for name in ("tenant_id", "type_id", "priority"))
_NEEDED = frozenset(Submission._fields.index(name) for name in ("job_id", "payload"))


@contextmanager
def _unstorable() -> Iterator[None]:
    try:
        yield
    except asyncpg.CheckViolationError as error:
        if not error.constraint_name:
            # No partition for the row's day: not the fault of what was submitted.
            raise DatabaseUnavailableError("Postgres: no partition for today") from error
        raise UnstorableError from error
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        raise UnstorableError from error
    except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
        # Keys are inserted in order, so this takes someone else's statement; the caller may simply try again.
        raise DatabaseUnavailableError(f"Postgres: {type(error).__name__}") from error
