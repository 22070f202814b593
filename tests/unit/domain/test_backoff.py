"""Waits between attempts: tables for the arithmetic, properties for the bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.backoff import (
    DEFAULT_DELIVERY_SCHEDULE,
    DELAY_SECONDS_MAX,
    BadRetryPolicyError,
    BadRetryScheduleError,
    RetryPolicy,
    check_schedule,
    delay,
    delivery_delay,
)

jitters = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    lambda base, over, factor, jitter: RetryPolicy(
        base_seconds=base, cap_seconds=min(base + over, DELAY_SECONDS_MAX), factor=factor, jitter=jitter
    ),
    st.floats(0, 86_400),
    st.floats(0, 86_400),
    st.floats(1, 100),
    st.sampled_from(["none", "full"]),
)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (9, 3600), (1025, 3600), (10**9, 3600)]
)
def test_the_default_doubles_from_thirty_seconds_up_to_an_hour(attempt: int, seconds: float) -> None:
    assert delay(attempt, RetryPolicy(), jitter=0.9) == pytest.approx(seconds)


@pytest.mark.parametrize("jitter", [0.0, 0.25, 0.999])
def test_full_jitter_takes_its_part_of_the_capped_wait(jitter: float) -> None:
    assert delay(20, RetryPolicy(jitter="full"), jitter=jitter) == 3600.0 * jitter


def test_a_factor_of_one_is_a_fixed_wait() -> None:
    policy = RetryPolicy(base_seconds=7, factor=1, cap_seconds=7)

    assert {delay(attempt, policy, jitter=0.0) for attempt in (1, 2, 50, 10**6)} == {7}


def test_a_base_of_zero_never_waits() -> None:
    assert delay(9, RetryPolicy(base_seconds=0), jitter=0.5) == 0.0


def test_the_smallest_base_does_not_overflow() -> None:
    assert delay(5000, RetryPolicy(base_seconds=5e-324, factor=100), jitter=0.0) == 3600.0


@given(policies, st.integers(1, 10**6), jitters)
def test_no_wait_is_negative_or_above_the_cap(policy: RetryPolicy, attempt: int, jitter: float) -> None:
    assert 0.0 <= delay(attempt, policy, jitter=jitter) <= policy.cap_seconds


@given(policies, st.integers(1, 2000), jitters)
def test_waits_never_shrink_from_one_attempt_to_the_next(policy: RetryPolicy, attempt: int, jitter: float) -> None:
    # Up to the last digit of a float, where the logarithm and the power disagree.
    longer = delay(attempt + 1, policy, jitter=jitter)

    assert delay(attempt, policy, jitter=jitter) <= longer * (1 + 1e-9)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("base_seconds", {"base_seconds": -1.0}),
        ("base_seconds", {"base_seconds": math.nan}),
        ("base_seconds", {"base_seconds": 60.0, "cap_seconds": 59.0}),
        ("base_seconds", {"base_seconds": True}),
        ("factor", {"factor": 0.5}),
        ("factor", {"factor": math.inf}),
        ("factor", {"factor": math.nan}),
        ("cap_seconds", {"cap_seconds": math.inf}),
        ("cap_seconds", {"cap_seconds": -1.0, "base_seconds": -2.0}),
        ("cap_seconds", {"cap_seconds": 31 * 86_400.0}),
        ("jitter", {"jitter": "some"}),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(field: str, values: dict[str, float]) -> None:
    with pytest.raises(BadRetryPolicyError) as refused:
        RetryPolicy(**values)  # type: ignore[arg-type]  # wrong values are the point

    assert refused.value.field == field
    assert refused.value.code == "bad_retry_policy"


def test_the_default_schedule_has_ten_tries_over_seventy_five_hours() -> None:
    assert len(DEFAULT_DELIVERY_SCHEDULE) + 1 == 10
    assert 75 * 3600 <= sum(DEFAULT_DELIVERY_SCHEDULE) < 76 * 3600


def test_a_schedule_is_used_up_after_its_last_wait() -> None:
    waits = [delivery_delay(attempt, (5, 60), jitter=0.0, retry_after=None) for attempt in (1, 2, 3, 4)]

    assert waits == [5, 60, None, None]
    assert delivery_delay(1, (), jitter=0.0, retry_after=10) is None


@given(
    st.lists(st.floats(0, 86_400), max_size=12),
    st.integers(1, 15),
    jitters,
    st.none() | st.floats(),
)
def test_a_delivery_is_never_early_and_at_most_a_tenth_late(
    schedule: list[float], attempt: int, jitter: float, retry_after: float | None
) -> None:
    wait = delivery_delay(attempt, schedule, jitter=jitter, retry_after=retry_after)

    if attempt > len(schedule):
        assert wait is None
        return
    asked = 0.0 if retry_after is None or math.isnan(retry_after) else min(max(retry_after, 0.0), 86_400.0)
    floor = max(schedule[attempt - 1], asked)
    assert wait is not None
    assert floor <= wait <= floor * 1.1 + 1e-9


@pytest.mark.parametrize("schedule", [[-1.0], [math.nan], [math.inf], [True], [1.0] * 51])
def test_a_schedule_that_cannot_be_meant_is_refused(schedule: list[float]) -> None:
    with pytest.raises(BadRetryScheduleError):
        check_schedule(schedule)


def test_a_schedule_is_kept_as_given() -> None:
    assert check_schedule([1, 2.5]) == (1.0, 2.5)
    assert check_schedule([]) == ()
