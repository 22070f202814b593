"""Why a job isn't running: the first of all causes that could hold it, as one sentence and the figures behind it.

The facts are read elsewhere and judged here, so that every cause can be reached by a test. The order of the causes is
the order in which a job meets them on its way to a worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from barnabas.domain.gates import Gate, LineKind, StartLog
from barnabas.domain.jobs import TERMINAL, JobState

COUNTED_MAX: Final = 10_000
"""A place in line is counted up to here; beyond that it is "more than"."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Cause(StrEnum):
    """What a job is held by. Part of the API: the names never change their meaning."""

    FINISHED = "finished"
    """It has ended."""
    RUNNING = "running"
    """Nothing: a worker has it."""
    SCHEDULED = "scheduled"
    """It is due later, by its submission or because its handler put it off."""
    BACKOFF = "backoff"
    """An attempt failed, and the wait before the next isn't over."""
    ORDERING_KEY = "ordering_key"
    """Another job of its ordering key has the turn."""
    TENANT_CONCURRENCY = "tenant_concurrency"
    """As many jobs of the tenant run as may at once."""
    TENANT_STARTS = "tenant_starts"
    """As many jobs of the tenant have started within the window as may."""
    TYPE_CONCURRENCY = "type_concurrency"
    """As many jobs of the tenant and this type run as may at once."""
    TYPE_STARTS = "type_starts"
    """As many jobs of the tenant and this type have started within the window as may."""
    NO_WORKER = "no_worker"
    """No live worker takes this type from this queue."""
    BACKLOG = "backlog"
    """More of the tenant's jobs wait than workers look ahead: it is in line for their look-ahead."""
    QUEUED = "queued"
    """Nothing but the jobs before it, of this tenant and of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Where a blocked job is in the line of its ordering key."""

    ordering_key: str
    job_id: UUID
    """Whose turn it is."""
    state: JobState
    """That job's: failed where its dead letter holds the line."""
    before: int
    """How many of the line are before this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a parked job waits."""

    kind: LineKind
    before: int
    """How many are before it in that line."""
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """The tenant's jobs that may be before this one, as far as they were looked at."""

    ahead: int
    """Ready ones of the same queue: more urgent, or as urgent and older."""
    is_all: bool
    """Whether all of the tenant's open jobs were looked at."""
    oldest_at: datetime | None
    """Since when the oldest of them is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The live workers of the job's queue."""

    count: int = 0
    able: int = 0
    """How many of them have the type."""
    slots: int = 0
    """How many jobs those can run at once, of all tenants."""
    ids: tuple[UUID, ...] = ()
    """Some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a job at one moment."""

    now: datetime
    state: JobState
    type: str
    queue: str
    attempt: int = 0
    max_attempts: int | None = None
    """None: what its handler says."""
    ready_at: datetime | None = None
    due_at: datetime | None = None
    was_snoozed: bool = False
    error_code: str | None = None
    """Of the last attempt that is over."""
    reason: str | None = None
    """Why it is a dead letter."""
    finished_at: datetime | None = None
    worker_id: UUID | None = None
    started_at: datetime | None = None
    timeout_seconds: float | None = None
    cancel_requested: bool = False
    turn: Turn | None = None
    seat: Seat | None = None
    tenant_gate: Gate | None = None
    type_gate: Gate | None = None
    workers: Workers = field(default_factory=Workers)
    others: Others | None = None
    is_untold: bool = False
    """Kafka is still to be told of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer. `until` is when the cause ends by itself, where that is known: never sooner, but maybe later."""

    cause: Cause
    message: str
    until: datetime | None = None
    details: Mapping[str, object] = field(default_factory=dict)


def explain(facts: Facts) -> Explanation:
    """The first cause that holds the job."""
    if facts.state in TERMINAL:
        return _finished(facts)
    if facts.state is JobState.RUNNING:
        return _running(facts)
    if facts.due_at is not None and facts.due_at > facts.now and facts.state is not JobState.QUEUED:
        return _backoff(facts) if facts.state is JobState.RETRYING else _scheduled(facts)
    if facts.turn is not None:
        return _behind(facts, facts.turn)
    held = _limited(facts)
    if held is not None:
        return held
    if not facts.workers.able:
        return _without_worker(facts)
    if facts.seat is not None and facts.seat.kind is LineKind.BACKLOG:
        return _backlog(facts, facts.seat)
    return _queued(facts)


def microseconds(moment: datetime) -> int:
    """A time as gates count it."""
    return (moment - _EPOCH) // _MICROSECOND


def opens_at(log: StartLog, at: int, place: int) -> int:
    """The soonest time at which the start limit lets the one of this place pass, counted from 1.

    Those before it start as soon as they may, and then count themselves: each round of as many as are allowed takes a
    whole window.
    """
    assert place > 0, "the first in line has place 1"
    rounds, number = divmod(place - 1, log.starts_allowed)
    opening = at
    # Of this round, so many pass before anything has to leave the window.
    excess = log.counting(at) - log.starts_allowed + number + 1
    for time, starts in log.entries:
        if excess <= 0:
            break
        if time + log.window_us > at:
            excess -= starts
            opening = time + log.window_us
    return opening + rounds * log.window_us


def _finished(facts: Facts) -> Explanation:
    message = f"The job {'was' if facts.state is JobState.CANCELLED else 'has'} {facts.state.label}"
    if facts.state is JobState.FAILED:
        message += f" in attempt {_attempt(facts)}: {facts.error_code or 'unknown'} ({facts.reason})"
    return Explanation(
        cause=Cause.FINISHED,
        message=f"{message}.",
        details={
            "outcome": facts.state.label,
            "finished_at": facts.finished_at,
            "attempt": facts.attempt,
            "max_attempts": facts.max_attempts,
            "reason": facts.reason,
            "error": facts.error_code,
        },
    )


def _running(facts: Facts) -> Explanation:
    assert facts.started_at is not None, "what runs has started"
    deadline = None
    if facts.timeout_seconds is not None:
        deadline = facts.started_at + timedelta(seconds=facts.timeout_seconds)
    asked = ", and has been asked to end" if facts.cancel_requested else ""
    return Explanation(
        cause=Cause.RUNNING,
        message=f"The job has been running since {_time(facts.started_at)}, attempt {_attempt(facts)}{asked}.",
        details={
            "worker_id": facts.worker_id,
            "started_at": facts.started_at,
            "deadline": deadline,
            "attempt": facts.attempt,
            "max_attempts": facts.max_attempts,
            "cancel_requested": facts.cancel_requested,
        },
    )


def _scheduled(facts: Facts) -> Explanation:
    assert facts.due_at is not None, "judged before"
    why = "The job's handler put it off: it is" if facts.was_snoozed else "The job is"
    return Explanation(
        cause=Cause.SCHEDULED,
        message=f"{why} due at {_time(facts.due_at)}.",
        until=facts.due_at,
        details={"due_at": facts.due_at, "was_snoozed": facts.was_snoozed},
    )


def _backoff(facts: Facts) -> Explanation:
    assert facts.due_at is not None, "judged before"
    return Explanation(
        cause=Cause.BACKOFF,
        message=(
            f"Attempt {_attempt(facts)} failed ({facts.error_code or 'unknown'}):"
            f" the next is due at {_time(facts.due_at)}."
        ),
        until=facts.due_at,
        details={
            "due_at": facts.due_at,
            "attempt": facts.attempt,
            "max_attempts": facts.max_attempts,
            "error": facts.error_code,
        },
    )


def _behind(facts: Facts, turn: Turn) -> Explanation:
    state = "failed, and its dead letter holds the line" if turn.state in TERMINAL else turn.state.label
    return Explanation(
        cause=Cause.ORDERING_KEY,
        message=(
            f"Job {turn.job_id} ({state}) has the turn of the ordering key {turn.ordering_key};"
            f" {_count(turn.before)} of its jobs {'is' if turn.before == 1 else 'are'} before this one."
        ),
        details={
            "ordering_key": turn.ordering_key,
            "turn_of": turn.job_id,
            "turn_status": turn.state.label,
            **_before(turn.before),
        },
    )


def _limited(facts: Facts) -> Explanation | None:
    gates = [("tenant", LineKind.TENANT, facts.tenant_gate), ("type", LineKind.TYPE, facts.type_gate)]
    if facts.seat is not None and facts.seat.kind is LineKind.TYPE:
        # It has been refused there, and will come to the other one later.
        gates.reverse()
    for scope, line, gate in gates:
        seat = facts.seat if facts.seat is not None and facts.seat.kind is line else None
        held = None if gate is None else _held_by(facts, scope, gate, seat)
        if held is not None:
            return held
    return None


def _held_by(facts: Facts, scope: str, gate: Gate, seat: Seat | None) -> Explanation | None:
    """A gate with too little room for the job's place in its line."""
    place = 1 if seat is None else seat.before + 1
    whose = "this tenant" if scope == "tenant" else f"the type {facts.type} of this tenant"
    inline = "" if seat is None else f"; {_count(seat.before)} {'is' if seat.before == 1 else 'are'} before this one"
    line: dict[str, object] = {} if scope == "tenant" else {"type": facts.type}
    line |= {"since": None, "before": None, "before_is_minimum": False}
    if seat is not None:
        line |= {"since": seat.since, **_before(seat.before)}
    if gate.allowed is not None and gate.allowed - gate.used < place:
        return Explanation(
            cause=Cause.TENANT_CONCURRENCY if scope == "tenant" else Cause.TYPE_CONCURRENCY,
            message=f"Running jobs of {whose}: {gate.used} of {gate.allowed} allowed{inline}.",
            details={"running": gate.used, "allowed": gate.allowed, **line},
        )
    at = microseconds(facts.now)
    if gate.log is not None and gate.log.room(at) < place:
        opens = _EPOCH + opens_at(gate.log, at, place) * _MICROSECOND
        starts, window_seconds = gate.log.counting(at), gate.log.window_us / 1_000_000
        return Explanation(
            cause=Cause.TENANT_STARTS if scope == "tenant" else Cause.TYPE_STARTS,
            message=(
                f"Starts of {whose} in the last {window_seconds:g} seconds: {starts} of {gate.log.starts_allowed}"
                f" allowed{inline}; not before {_time(opens)}."
            ),
            until=opens,
            details={
                "starts": starts,
                "allowed": gate.log.starts_allowed,
                "window_seconds": window_seconds,
                **line,
            },
        )
    return None


def _without_worker(facts: Facts) -> Explanation:
    others = f"none of the {facts.workers.count} live workers there has it" if facts.workers.count else "none is live"
    return Explanation(
        cause=Cause.NO_WORKER,
        message=f"No live worker takes jobs of the type {facts.type} from the queue {facts.queue}: {others}.",
        details={
            "type": facts.type,
            "queue": facts.queue,
            "workers_of_queue": facts.workers.count,
            "worker_ids": list(facts.workers.ids),
        },
    )


def _backlog(facts: Facts, seat: Seat) -> Explanation:
    return Explanation(
        cause=Cause.BACKLOG,
        message=(
            f"More jobs of this tenant wait in the queue {facts.queue} than workers look ahead:"
            f" {_count(seat.before)} of the backlog {'is' if seat.before == 1 else 'are'} before this one."
        ),
        details={"queue": facts.queue, "since": seat.since, "workers": facts.workers.able, **_before(seat.before)},
    )


def _queued(facts: Facts) -> Explanation:
    others = facts.others or Others(ahead=0, is_all=True, oldest_at=None)
    ahead = f"{others.ahead}" if others.is_all else f"at least {others.ahead}"
    untold = ", but Kafka is still to be told of it" if facts.is_untold else ""
    return Explanation(
        cause=Cause.QUEUED,
        message=(
            f"The job is ready{untold}; before it: {ahead} of this tenant's jobs; live workers:"
            f" {facts.workers.able} with {facts.workers.slots} slots for all tenants."
        ),
        details={
            "before": others.ahead,
            "before_is_minimum": not others.is_all,
            "oldest_ready_at": others.oldest_at,
            "ready_at": facts.ready_at,
            "workers": facts.workers.able,
            "slots": facts.workers.slots,
            "is_untold": facts.is_untold,
        },
    )


def _before(count: int) -> dict[str, object]:
    return {"before": count, "before_is_minimum": count >= COUNTED_MAX}


def _count(count: int) -> str:
    return f"{count}" if count < COUNTED_MAX else f"{COUNTED_MAX} or more"


def _attempt(facts: Facts) -> str:
    return f"{facts.attempt}" if facts.max_attempts is None else f"{facts.attempt} of {facts.max_attempts}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"
