"""When a group commit starts: the hold by load, and the rate that it is judged by."""

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.grouping import HOLD_SECONDS_MAX, RateMeter, hold_seconds

rates = st.floats(0, 1e9)
arrivals = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 1_000)), max_size=20)


@pytest.mark.parametrize(
    ("rate", "milliseconds"),
    [(0, 0), (50, 0), (1_000, 0), (3_000, 0.1875), (5_000, 1.5), (7_000, 5.0625), (9_000, 12), (1_000_000, 12)],
)
def test_a_flush_waits_longer_the_more_arrives(rate: float, milliseconds: float) -> None:
    assert isclose(hold_seconds(rate) * 1_000, milliseconds)


@given(rates, rates)
def test_the_hold_never_shrinks_while_the_load_grows(one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert 0 <= hold_seconds(low) <= hold_seconds(high) <= HOLD_SECONDS_MAX


def metered(batches: list[tuple[float, int]], *, window_seconds: float = 0.5) -> tuple[RateMeter, float]:
    """A meter that was fed these (seconds since the one before, count), and the time it is then."""
    meter, now = RateMeter(window_seconds=window_seconds), 100.0
    for pause, count in batches:
        now += pause
        meter.add(count, now=now)
    return meter, now


def test_nothing_arrived_is_no_rate() -> None:
    assert RateMeter().rate(now=7.0) == 0.0


@pytest.mark.parametrize("rate", [10, 800, 20_000])
def test_a_steady_stream_is_measured_as_what_it_is(rate: int) -> None:
    # Fifty looks a second for ten seconds: twenty windows.
    meter, now = metered([(0.02, rate // 50 or 1)] * 500)

    assert meter.rate(now=now) == pytest.approx(max(rate, 50), rel=0.05)


@given(arrivals, st.floats(0, 100))
def test_the_rate_is_never_negative_and_fades_while_nothing_arrives(
    batches: list[tuple[float, int]], pause: float
) -> None:
    meter, now = metered(batches)
    before = meter.rate(now=now)

    after = meter.rate(now=now + pause)

    assert 0 <= after <= before


@given(arrivals)
def test_a_burst_is_forgotten_within_ten_windows(batches: list[tuple[float, int]]) -> None:
    meter, now = metered(batches)
    before = meter.rate(now=now)

    assert meter.rate(now=now + 5.0) <= before * 5e-5


@given(arrivals, st.integers(1, 1_000))
def test_looking_changes_nothing(batches: list[tuple[float, int]], count: int) -> None:
    watched, now = metered(batches)
    alone, _ = metered(batches)

    for step in range(1, 6):
        watched.rate(now=now + step / 10)
    watched.add(count, now=now + 1)
    alone.add(count, now=now + 1)

    assert watched.rate(now=now + 2) == pytest.approx(alone.rate(now=now + 2))


@given(arrivals, st.floats(0, 10))
def test_a_time_that_stepped_back_neither_raises_nor_loses_the_rate(
    batches: list[tuple[float, int]], back: float
) -> None:
    meter, now = metered(batches)
    before = meter.rate(now=now)

    assert meter.rate(now=now - back) == before
    assert meter.rate(now=now) == before


def test_a_shorter_window_follows_sooner() -> None:
    short, now = metered([(0.1, 10)] * 10, window_seconds=0.1)
    long, _ = metered([(0.1, 10)] * 10, window_seconds=2.0)

    assert short.rate(now=now + 1) < long.rate(now=now + 1)
