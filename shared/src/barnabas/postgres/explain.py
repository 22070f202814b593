"""What may keep a job from running, read by two questions: the tenant's own rows as that tenant, then the workers."""

from uuid import UUID

import asyncpg
import msgspec

from barnabas.contract.jobs import JobError
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.explain import COUNTED_MAX, Facts, Others, Seat, Turn, Workers, microseconds
from barnabas.domain.gates import Gate, LineKind, StartLog
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Database


async def read_facts(api: Database, engine: Database, tenant_id: UUID, job_id: UUID) -> Facts | None:
    """The facts; None for an unknown job and for another tenant's alike.

    `api` is the login that sees one tenant's rows; workers and the outbox are nobody's, so `engine` reads them. The
    cost has a limit however much waits: lines, and the tenant's jobs, are looked at as far as `COUNTED_MAX`.
    """
    async with api.tenant(tenant_id) as session:
        await session.execute("plan_in_index_order")
        row = await session.fetchrow("read_explanation", tenant_id, job_id, COUNTED_MAX)
    if row is None:
        return None
    workers, is_untold = Workers(), False
    if row["is_ready"]:
        told = await engine.fetchrow("read_explanation_workers", row["queue_id"], row["type_id"], job_id)
        assert told is not None, "aggregates always make a row"
        workers = Workers(count=told["workers"], able=told["able"], slots=told["slots"], ids=tuple(told["worker_ids"]))
        is_untold = told["is_untold"]
    return Facts(
        now=row["now"],
        state=JobState(row["state"]),
        type=row["type"],
        queue=row["queue"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        ready_at=row["ready_at"],
        due_at=row["due_at"],
        was_snoozed=row["last_kind"] == AttemptKind.SNOOZE,
        error_code=_error_code(row["error"] or row["last_error"]),
        reason=row["reason"],
        finished_at=row["finished_at"],
        worker_id=row["worker_id"],
        started_at=row["started_at"],
        timeout_seconds=None if row["timeout_ms"] is None else row["timeout_ms"] / 1000,
        cancel_requested=row["cancel_requested"],
        turn=_turn(row),
        seat=None
        if row["seat_kind"] is None
        else Seat(kind=LineKind(row["seat_kind"]), before=row["seat_before"], since=row["seat_since"]),
        tenant_gate=_gate(row, "tenant"),
        type_gate=_gate(row, "type"),
        workers=workers,
        others=Others(ahead=row["ahead"], is_all=row["seen"] < COUNTED_MAX, oldest_at=row["oldest_at"]),
        is_untold=is_untold,
    )


def _turn(row: asyncpg.Record) -> Turn | None:
    if row["turn_id"] is None:
        return None
    # Whose turn it is and isn't open is a dead letter that holds the line.
    state = JobState.FAILED if row["turn_state"] is None else JobState(row["turn_state"])
    return Turn(ordering_key=row["ordering_key"], job_id=row["turn_id"], state=state, before=row["line_before"])


def _gate(row: asyncpg.Record, scope: str) -> Gate | None:
    if row[f"{scope}_used"] is None:
        return None
    log = None
    if row[f"{scope}_starts"] is not None:
        entries = zip(row[f"{scope}_log_at"], row[f"{scope}_log_counts"], strict=True)
        log = StartLog(
            starts_allowed=row[f"{scope}_starts"],
            window_us=round(row[f"{scope}_window"] * 1_000_000),
            entries=tuple((microseconds(at), starts) for at, starts in entries),
        )
    return Gate(allowed=row[f"{scope}_allowed"], used=row[f"{scope}_used"], log=log)


def _error_code(error: bytes | None) -> str | None:
    return None if error is None else msgspec.json.decode(error, type=JobError).code
