"""Why a job isn't running: each cause, the order of them, and the time at which a start limit opens."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.explain import (
    COUNTED_MAX,
    Cause,
    Facts,
    Others,
    Seat,
    Turn,
    Workers,
    explain,
    microseconds,
    opens_at,
)
from barnabas.domain.gates import Gate, LineKind, StartLog
from barnabas.domain.jobs import TERMINAL, JobState

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
AT = microseconds(NOW)
LATER = NOW + timedelta(minutes=5)
SOME_ID = UUID(int=7)
ONE_WORKER = Workers(count=2, able=1, slots=8, ids=(SOME_ID,))


def facts(state: JobState = JobState.QUEUED, **known: Any) -> Facts:
    return Facts(now=NOW, state=state, type="scoring", queue="default", **{"workers": ONE_WORKER, **known})


def full(used: int = 2, allowed: int = 2) -> Gate:
    return Gate(allowed=allowed, used=used)


def full_window(starts: int = 2, *, seconds_ago: int = 20) -> Gate:
    return Gate(log=StartLog(starts_allowed=2, entries=((AT - seconds_ago * 1_000_000, starts),)))


def seat(kind: LineKind, before: int = 0) -> Seat:
    return Seat(kind=kind, before=before, since=NOW)


def turn(before: int = 1, state: JobState = JobState.RUNNING) -> Turn:
    return Turn(ordering_key="account-7", job_id=SOME_ID, state=state, before=before)


CASES: list[tuple[Cause, Facts]] = [
    (Cause.FINISHED, facts(JobState.SUCCEEDED, finished_at=NOW)),
    (Cause.RUNNING, facts(JobState.RUNNING, started_at=NOW, tenant_gate=full())),
    (Cause.SCHEDULED, facts(JobState.SCHEDULED, due_at=LATER, tenant_gate=full())),
    (Cause.SCHEDULED, facts(JobState.BLOCKED, due_at=LATER, turn=turn())),
    (Cause.BACKOFF, facts(JobState.RETRYING, due_at=LATER, attempt=1, workers=Workers())),
    (Cause.ORDERING_KEY, facts(JobState.BLOCKED, turn=turn(), tenant_gate=full())),
    (Cause.ORDERING_KEY, facts(JobState.BLOCKED, turn=turn(), due_at=NOW)),
    (Cause.TENANT_CONCURRENCY, facts(tenant_gate=full(), type_gate=full(), workers=Workers())),
    (Cause.TENANT_CONCURRENCY, facts(JobState.RETRYING, due_at=NOW, tenant_gate=full())),
    (Cause.TENANT_CONCURRENCY, facts(tenant_gate=full(3, 5), seat=seat(LineKind.TENANT, 2))),
    (Cause.TENANT_STARTS, facts(tenant_gate=full_window(), type_gate=full())),
    (Cause.TYPE_CONCURRENCY, facts(tenant_gate=full(1), type_gate=full(), workers=Workers())),
    # Refused by its type's gate: that one is in the way, full or not the other.
    (Cause.TYPE_CONCURRENCY, facts(tenant_gate=full(), type_gate=full(), seat=seat(LineKind.TYPE))),
    (Cause.TYPE_STARTS, facts(type_gate=full_window())),
    (Cause.NO_WORKER, facts(workers=Workers(), seat=seat(LineKind.BACKLOG))),
    (Cause.NO_WORKER, facts(workers=replace(ONE_WORKER, able=0), seat=seat(LineKind.UNHANDLED))),
    (Cause.BACKLOG, facts(seat=seat(LineKind.BACKLOG, 12))),
    (Cause.QUEUED, facts()),
    (Cause.QUEUED, facts(JobState.SCHEDULED, due_at=NOW)),
    (Cause.QUEUED, facts(tenant_gate=full(1), type_gate=Gate(), seat=seat(LineKind.TENANT))),
    (Cause.QUEUED, facts(seat=seat(LineKind.UNHANDLED))),
]


@pytest.mark.parametrize(("cause", "known"), CASES)
def test_the_first_cause_on_the_way_is_named(cause: Cause, known: Facts) -> None:
    told = explain(known)

    assert told.cause is cause
    assert told.message.endswith(".")


def test_every_cause_can_be_reached() -> None:
    assert {cause for cause, _ in CASES} == set(Cause)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    state = draw(st.sampled_from(JobState))
    moments = st.integers(-3600, 3600).map(lambda seconds: NOW + timedelta(seconds=seconds))
    logs = st.builds(
        StartLog,
        starts_allowed=st.integers(1, 5),
        entries=st.lists(st.integers(1, 3), max_size=4).map(
            lambda counts: tuple((AT - (len(counts) - n) * 9_000_000, count) for n, count in enumerate(counts))
        ),
    )
    gates = st.none() | st.builds(
        Gate, allowed=st.none() | st.integers(1, 5), used=st.integers(0, 6), log=st.none() | logs
    )
    counts = st.integers(0, 20) | st.just(COUNTED_MAX)
    return facts(
        state,
        attempt=draw(st.integers(0, 3)),
        max_attempts=draw(st.none() | st.just(3)),
        ready_at=draw(st.none() | moments),
        due_at=draw(moments) if state in (JobState.SCHEDULED, JobState.RETRYING) else draw(st.none() | moments),
        was_snoozed=draw(st.booleans()),
        error_code=draw(st.none() | st.just("handler_error")),
        started_at=draw(moments) if state is JobState.RUNNING else None,
        timeout_seconds=draw(st.none() | st.just(60.0)),
        turn=turn(draw(counts), draw(st.sampled_from(JobState))) if state is JobState.BLOCKED else None,
        seat=draw(st.none() | st.builds(Seat, kind=st.sampled_from(LineKind), before=counts, since=moments)),
        tenant_gate=draw(gates),
        type_gate=draw(gates),
        workers=draw(st.sampled_from([Workers(), ONE_WORKER])),
        others=draw(st.none() | st.builds(Others, ahead=counts, is_all=st.booleans(), oldest_at=st.none() | moments)),
        is_untold=draw(st.booleans()),
    )


@given(any_facts())
def test_whatever_is_known_there_is_one_cause_that_holds(known: Facts) -> None:
    told = explain(known)

    assert (told.cause is Cause.FINISHED) == (known.state in TERMINAL)
    assert (told.cause is Cause.RUNNING) == (known.state is JobState.RUNNING)
    assert told.until is None or told.until > known.now
    if told.cause in (Cause.QUEUED, Cause.BACKLOG):
        rooms = [gate.room(AT) for gate in (known.tenant_gate, known.type_gate) if gate is not None]
        assert all(room is None or room > 0 for room in rooms)
        assert known.workers.able
    if told.cause is Cause.ORDERING_KEY:
        assert known.state is JobState.BLOCKED


def test_the_figures_are_those_of_the_cause() -> None:
    told = explain(facts(tenant_gate=full(5, 5), seat=seat(LineKind.TENANT, 3)))

    assert told.message == "Running jobs of this tenant: 5 of 5 allowed; 3 are before this one."
    assert told.details == {
        "running": 5,
        "allowed": 5,
        "since": NOW,
        "before": 3,
        "before_is_minimum": False,
    }
    assert told.until is None


def test_a_failed_attempt_and_the_next_are_told() -> None:
    told = explain(facts(JobState.RETRYING, due_at=LATER, attempt=2, max_attempts=5, error_code="timed_out"))

    assert told.message == "Attempt 2 of 5 failed (timed_out): the next is due at 2026-01-31 12:05:00.000Z."
    assert (told.until, told.details["attempt"], told.details["error"]) == (LATER, 2, "timed_out")


def test_a_full_window_says_when_it_opens() -> None:
    told = explain(facts(type_gate=full_window(seconds_ago=20), seat=seat(LineKind.TYPE)))

    assert told.until == NOW + timedelta(seconds=40)
    assert told.details["type"] == "scoring"
    assert "2 of 2 allowed; 0 are before this one; not before 2026-01-31 12:00:40.000Z" in told.message


def test_a_place_that_was_not_counted_to_its_end_is_told_as_a_minimum() -> None:
    told = explain(facts(seat=seat(LineKind.BACKLOG, COUNTED_MAX)))

    assert f"{COUNTED_MAX} or more of the backlog" in told.message
    assert told.details["before_is_minimum"] is True


def test_a_dead_letter_that_holds_its_line_is_named() -> None:
    told = explain(facts(JobState.BLOCKED, turn=turn(state=JobState.FAILED)))

    assert "its dead letter holds the line" in told.message
    assert told.details["turn_status"] == "failed"


@given(
    allowed=st.integers(1, 6),
    pauses=st.lists(st.integers(0, 30_000_000), max_size=8),
    idle=st.integers(0, 70_000_000),
    place=st.integers(1, 25),
)
def test_a_window_opens_for_each_place_when_those_before_it_start_as_soon_as_they_may(
    allowed: int, pauses: list[int], idle: int, place: int
) -> None:
    log, at = StartLog(starts_allowed=allowed), AT
    for pause in pauses:
        at = log.opens_at(at + pause)
        log = log.add(at, 1)
    at += idle

    told = opens_at(log, at, place)

    moment = at
    for _ in range(place):
        moment = log.opens_at(moment)
        log = log.add(moment, 1)
    assert told == moment


@given(started=st.integers(1, 6), allowed=st.integers(1, 6), place=st.integers(1, 12))
def test_a_limit_lowered_below_what_has_started_opens_when_enough_of_it_is_over(
    started: int, allowed: int, place: int
) -> None:
    log = StartLog(starts_allowed=allowed, entries=tuple((AT + second * 1_000_000, 1) for second in range(started)))
    at = AT + started * 1_000_000

    told = opens_at(log, at, place)

    moment = at
    for _ in range(place):
        moment = log.opens_at(moment)
        log = log.add(moment, 1)
    assert told == moment
