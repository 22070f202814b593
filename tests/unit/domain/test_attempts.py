"""What becomes of a job, for every way in which an attempt can end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.attempts import (
    LOSSES_MAX,
    AttemptKind,
    Cancelled,
    DeadLetterReason,
    Decision,
    Finish,
    HandedBack,
    JobError,
    Lost,
    Outcome,
    Postpone,
    Raised,
    Requeue,
    Retry,
    Snoozed,
    Succeeded,
    TimedOut,
    decide,
    kind_of,
)
from barnabas.domain.backoff import DELAY_SECONDS_MAX, RETRY_AFTER_SECONDS_MAX, RetryPolicy
from barnabas.domain.jobs import TERMINAL, JobState, apply

ERROR = Raised("http_error", "the upstream answered 500", retryable=True)
PERMANENT = Raised("bad_payload", "no such customer", retryable=False)

outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, st.none() | st.binary(max_size=8)),
    st.builds(Raised, st.just("e"), st.just("m"), st.booleans(), st.none() | st.floats()),
    st.builds(TimedOut, st.floats(0, 1e6)),
    st.builds(Snoozed, st.floats()),
    st.just(Lost()),
    st.just(HandedBack()),
    st.just(Cancelled()),
)


def after(
    outcome: Outcome,
    *,
    attempt: int = 1,
    max_attempts: int = 4,
    losses: int = 0,
    policy: RetryPolicy | None = None,
    jitter: float = 0.5,
    cancel_requested: bool = False,
) -> Decision:
    return decide(
        outcome,
        attempt=attempt,
        max_attempts=max_attempts,
        losses=losses,
        policy=policy or RetryPolicy(),
        jitter=jitter,
        cancel_requested=cancel_requested,
    )


def test_a_success_ends_the_job() -> None:
    assert after(Succeeded(b"{}")) == Finish(state=JobState.SUCCEEDED)


def test_a_success_on_the_last_attempt_is_a_success() -> None:
    assert after(Succeeded(), attempt=4, max_attempts=4) == Finish(state=JobState.SUCCEEDED)


def test_a_success_that_arrives_after_a_cancel_request_stays_succeeded() -> None:
    assert after(Succeeded(b"1"), cancel_requested=True) == Finish(state=JobState.SUCCEEDED)


@pytest.mark.parametrize("outcome", [ERROR, PERMANENT, TimedOut(30), Snoozed(5), Lost(), HandedBack(), Cancelled()])
def test_any_other_end_after_a_cancel_request_is_cancelled_and_never_retried(outcome: Outcome) -> None:
    decision = after(outcome, cancel_requested=True)

    assert isinstance(decision, Finish)
    assert decision.state is JobState.CANCELLED
    assert decision.dead_letter_reason is None


def test_a_handler_that_stopped_on_request_is_cancelled() -> None:
    assert after(Cancelled()) == Finish(state=JobState.CANCELLED)


def test_a_permanent_error_is_a_dead_letter_at_once() -> None:
    assert after(PERMANENT) == Finish(
        state=JobState.FAILED,
        error=JobError("bad_payload", "no such customer", retryable=False),
        dead_letter_reason=DeadLetterReason.PERMANENT_ERROR,
    )


def test_a_permanent_error_on_the_last_attempt_is_still_called_permanent() -> None:
    decision = after(PERMANENT, attempt=4, max_attempts=4)

    assert isinstance(decision, Finish)
    assert decision.dead_letter_reason == "permanent_error"


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 30.0), (2, 60.0), (3, 120.0)])
def test_a_retryable_error_waits_thirty_sixty_and_a_hundred_and_twenty_seconds(attempt: int, seconds: float) -> None:
    decision = after(ERROR, attempt=attempt)

    assert decision == Retry(delay_seconds=seconds, error=JobError("http_error", "the upstream answered 500", True))


@pytest.mark.parametrize("outcome", [ERROR, TimedOut(30)])
def test_attempts_used_up_make_a_dead_letter(outcome: Outcome) -> None:
    assert isinstance(after(outcome, attempt=3), Retry)

    decision = after(outcome, attempt=4)

    assert isinstance(decision, Finish)
    assert decision.state is JobState.FAILED
    assert decision.dead_letter_reason == "attempts_exhausted"
    assert decision.error is not None
    assert decision.error.retryable


def test_a_time_out_is_retryable_and_says_how_long_it_was() -> None:
    decision = after(TimedOut(2.5))

    assert decision == Retry(delay_seconds=30.0, error=JobError("timeout", "did not end within 2.5 s", retryable=True))


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(None, 30.0), (5.0, 30.0), (90.0, 90.0), (7200.0, 7200.0), (1e12, RETRY_AFTER_SECONDS_MAX), (-3.0, 30.0)],
)
def test_a_wish_for_a_later_retry_is_a_floor_capped_at_a_day(retry_after: float | None, seconds: float) -> None:
    decision = after(Raised("busy", "later", retryable=True, retry_after=retry_after))

    assert isinstance(decision, Retry)
    assert decision.delay_seconds == seconds


def test_a_snooze_is_not_an_attempt_even_when_none_is_left() -> None:
    assert after(Snoozed(90), attempt=4, max_attempts=4) == Postpone(delay_seconds=90.0)


@pytest.mark.parametrize(("asked", "given_"), [(-1.0, 0.0), (math.nan, 0.0), (math.inf, DELAY_SECONDS_MAX)])
def test_a_snooze_has_bounds(asked: float, given_: float) -> None:
    assert after(Snoozed(asked)) == Postpone(delay_seconds=given_)


def test_a_hand_back_is_not_an_attempt() -> None:
    decision = after(HandedBack(), attempt=4, max_attempts=4)

    assert decision == Requeue(kind=AttemptKind.HAND_BACK)
    assert isinstance(decision, Requeue)
    assert not decision.charged


@pytest.mark.parametrize("losses", [0, 1])
def test_a_loss_is_not_an_attempt_and_isolates_the_job(losses: int) -> None:
    decision = after(Lost(), attempt=4, max_attempts=4, losses=losses)

    assert decision == Requeue(kind=AttemptKind.LOSS, isolate=True)


@pytest.mark.parametrize("losses", [2, 3, 9])
def test_the_third_loss_is_a_dead_letter(losses: int) -> None:
    decision = after(Lost(), losses=losses)

    assert isinstance(decision, Finish)
    assert decision.state is JobState.FAILED
    assert decision.dead_letter_reason == "worker_lost"
    assert decision.error is not None
    assert decision.error.code == "worker_lost"


@given(
    outcome=outcomes,
    attempt=st.integers(1, 100),
    more=st.integers(0, 50),
    losses=st.integers(0, 4),
    jitter=st.floats(0, 1, exclude_max=True),
    full=st.booleans(),
    cancel_requested=st.booleans(),
)
def test_every_decision_is_a_legal_move_with_a_bounded_wait(
    outcome: Outcome, attempt: int, more: int, losses: int, jitter: float, full: bool, cancel_requested: bool
) -> None:
    decision = after(
        outcome,
        attempt=attempt,
        max_attempts=attempt + more,
        losses=losses,
        policy=RetryPolicy(jitter="full" if full else "none"),
        jitter=jitter,
        cancel_requested=cancel_requested,
    )

    state = apply(JobState.RUNNING, decision.command)
    match decision:
        case Finish():
            assert state is decision.state
            assert state in TERMINAL
            assert (decision.dead_letter_reason is not None) == (state is JobState.FAILED)
        case Retry(delay_seconds=seconds):
            assert state is JobState.RETRYING
            assert more > 0
            assert 0.0 <= seconds <= RETRY_AFTER_SECONDS_MAX
        case Postpone(delay_seconds=seconds):
            assert state is JobState.SCHEDULED
            assert 0.0 <= seconds <= DELAY_SECONDS_MAX
        case Requeue():
            assert state is JobState.QUEUED
            assert decision.kind is kind_of(outcome)
    assert not cancel_requested or state in {JobState.SUCCEEDED, JobState.CANCELLED}


@given(st.lists(st.sampled_from([ERROR, TimedOut(1), Snoozed(1), Lost(), HandedBack()]), max_size=60))
def test_a_job_never_has_more_attempts_than_allowed_nor_more_losses_than_three(ends: list[Outcome]) -> None:
    attempt, losses, runs_charged = 0, 0, 0
    for outcome in ends:
        attempt += 1
        decision = after(outcome, attempt=attempt, max_attempts=3, losses=losses)
        runs_charged += kind_of(outcome) is AttemptKind.ATTEMPT
        losses += kind_of(outcome) is AttemptKind.LOSS
        if isinstance(decision, Finish):
            break
        if not isinstance(decision, Retry):
            attempt -= 1

    assert runs_charged <= 3
    assert losses <= LOSSES_MAX


def test_results_stay_out_of_logs() -> None:
    assert "secret" not in repr(Succeeded(b"secret"))
