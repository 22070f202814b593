"""Accepting jobs: what one flush of ingest writes, in one round trip and one commit.

Columns go in as arrays, and a column that holds nothing goes in empty: most jobs have no time-out, no metadata, no due
time, and each array costs 0.3 us a job to encode.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from barnabas.errors import DatabaseUnavailableError, RejectedError, SupersededError
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
    redrive_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The job that an idempotency key stands for; `made` when it is the one that was just submitted."""

    job_id: UUID
    fingerprint: bytes
    made: bool


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


async def accept_jobs(session: Session, jobs: Sequence[Submission], *, told: Sequence[int]) -> int | None:
    """Write a flush; returns the outbox row that tells Kafka, None when all of them are due later.

    `told` are outbox rows whose records the broker has acknowledged: they go with the same commit. Raises
    `UnstorableError` when at least one of the jobs can't be stored; then none is.
    """
    with _unstorable():
        outbox_id: int | None = await session.fetchval("accept_jobs", *_columns(jobs), told)
    return outbox_id


async def accept_keyed_jobs(
    session: Session, jobs: Sequence[Submission], keys: Sequence[str], fingerprints: Sequence[bytes]
) -> tuple[list[KeyHolder | None], int | None]:
    """Write those jobs whose idempotency key nobody holds; returns each key's holder, in order, and the outbox row.

    Waits for other transactions that are inserting the same keys. None as a holder: the key was cleaned away at this
    moment, submit again. Raises `UnstorableError` as `accept_jobs` does.
    """
    with _unstorable():
        rows = await session.fetch("accept_keyed_jobs", keys, fingerprints, *_columns(jobs))
    holders: list[KeyHolder | None] = [None] * len(jobs)
    for row in rows:
        holders[row["place"] - 1] = KeyHolder(row["job_id"], row["fingerprint"], row["made"])
    return holders, rows[0]["outbox"] if rows else None


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


def _columns(jobs: Sequence[Submission]) -> Iterator[tuple[Any, ...]]:
    # `any` is false for a column of None or of zeros: the statement takes a missing queue for queue 0. The first four
    # columns are always sent; a priority may well be 0 in all of them.
    for at, column in enumerate(zip(*jobs, strict=True)):
        yield column if at < 4 or at == 8 or any(column) else ()


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
