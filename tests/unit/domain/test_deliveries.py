"""What becomes of a delivery, for every way in which a try can end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.backoff import DEFAULT_DELIVERY_SCHEDULE
from barnabas.domain.deliveries import (
    DELIVERY_OPEN,
    DELIVERY_TERMINAL,
    ConnectFailed,
    Delivered,
    DeliveryDeadLetterReason,
    DeliveryDecision,
    DeliveryOutcome,
    DeliveryState,
    GiveUp,
    HttpAnswer,
    Refused,
    RetryDelivery,
    TimedOut,
    UnknownDeliveryStateError,
    decide_delivery,
)

outcomes: st.SearchStrategy[DeliveryOutcome] = st.one_of(
    st.builds(HttpAnswer, st.integers(100, 999), st.none() | st.floats()),
    st.just(ConnectFailed("connection_refused")),
    st.just(TimedOut(15.0)),
    st.just(Refused("loopback")),
)


def after(outcome: DeliveryOutcome, *, attempt: int = 1, jitter: float = 0.0) -> DeliveryDecision:
    return decide_delivery(outcome, attempt=attempt, schedule=DEFAULT_DELIVERY_SCHEDULE, jitter=jitter)


@pytest.mark.parametrize("status", range(100, 600))
def test_two_hundreds_are_success_and_nothing_else_is(status: int) -> None:
    assert isinstance(after(HttpAnswer(status)), Delivered) == (200 <= status <= 299)


def test_gone_ends_the_delivery_and_disables_the_endpoint_at_the_first_answer() -> None:
    assert after(HttpAnswer(410)) == GiveUp(
        reason=DeliveryDeadLetterReason.ENDPOINT_GONE, error_code="http_410", disable_endpoint=True
    )


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (HttpAnswer(302), "http_302"),
        (HttpAnswer(404), "http_404"),
        (HttpAnswer(500), "http_500"),
        (ConnectFailed("tls"), "tls"),
        (TimedOut(15.0), "timeout"),
        (Refused("loopback"), "loopback"),
    ],
)
def test_every_other_failure_is_retried_on_the_schedule(outcome: DeliveryOutcome, code: str) -> None:
    assert after(outcome, attempt=2) == RetryDelivery(delay_seconds=300.0, error_code=code)


def test_a_used_up_schedule_is_a_dead_letter_after_the_tenth_try() -> None:
    assert isinstance(after(HttpAnswer(500), attempt=9), RetryDelivery)
    assert after(HttpAnswer(500), attempt=10) == GiveUp(
        reason=DeliveryDeadLetterReason.ATTEMPTS_EXHAUSTED, error_code="http_500"
    )


@pytest.mark.parametrize("status", [301, 404, 429, 500, 503])
def test_retry_after_is_a_floor_on_any_failure(status: int) -> None:
    decision = after(HttpAnswer(status, retry_after=60.0), jitter=0.5)

    assert isinstance(decision, RetryDelivery)
    assert decision.delay_seconds == pytest.approx(63.0)


@given(outcomes, st.integers(1, 20), st.lists(st.floats(0, 86_400), max_size=12), st.floats(0, 1, exclude_max=True))
def test_tries_are_bounded_and_only_gone_disables(
    outcome: DeliveryOutcome, attempt: int, schedule: list[float], jitter: float
) -> None:
    decision = decide_delivery(outcome, attempt=attempt, schedule=schedule, jitter=jitter)

    match decision:
        case Delivered():
            assert decision.state is DeliveryState.SUCCEEDED
        case RetryDelivery(delay_seconds=seconds):
            assert decision.state is DeliveryState.RETRYING
            assert attempt <= len(schedule)
            assert schedule[attempt - 1] <= seconds <= 86_400 * 1.1
        case GiveUp():
            assert decision.state is DeliveryState.FAILED
            gone = isinstance(outcome, HttpAnswer) and outcome.status == 410
            assert decision.disable_endpoint == gone
            assert gone or attempt > len(schedule)


def test_stored_numbers_never_change() -> None:
    assert [(state.label, int(state)) for state in DeliveryState] == [
        ("pending", 0),
        ("parked", 1),
        ("running", 2),
        ("retrying", 3),
        ("succeeded", 4),
        ("failed", 5),
        ("cancelled", 6),
    ]
    assert frozenset(DeliveryState) == DELIVERY_OPEN | DELIVERY_TERMINAL
    assert not DELIVERY_OPEN & DELIVERY_TERMINAL


def test_labels_go_there_and_back() -> None:
    assert [DeliveryState.from_label(state.label) for state in DeliveryState] == list(DeliveryState)
    with pytest.raises(UnknownDeliveryStateError):
        DeliveryState.from_label("lost")
