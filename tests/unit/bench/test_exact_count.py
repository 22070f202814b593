"""Violations are counted right: against a count by hand, and a fault that is put in is found."""

import random

import pytest

from tests.bench.exact_count import count_over_places, count_over_window, places_used, starts_used
from tests.bench.fairness_shares import deviation, jain

_SECOND = 1_000_000


def test_a_place_that_is_given_back_at_the_same_microsecond_is_free() -> None:
    assert count_over_places([(0, 10), (10, 20)], 1) == 0
    assert count_over_places([(0, 10), (9, 20)], 1) == 1


@pytest.mark.parametrize("seed", range(20))
def test_starts_above_the_places_are_those_that_a_look_at_each_start_finds(seed: int) -> None:
    chance = random.Random(seed)
    # No two moments alike, so that it doesn't matter what comes first in one.
    moments = chance.sample(range(10_000), 200)
    runs = [(min(pair), max(pair)) for pair in zip(moments[::2], moments[1::2], strict=True)]
    by_hand = sum(1 for at, _ in runs if sum(began <= at < ended for began, ended in runs) > 20)

    assert count_over_places(runs, 20) == by_hand
    assert by_hand > 0


@pytest.mark.parametrize("seed", range(20))
def test_starts_above_a_window_are_those_that_a_look_at_each_window_finds(seed: int) -> None:
    chance = random.Random(seed)
    starts = chance.sample(range(10_000), 300)
    by_hand = sum(1 for at in starts if sum(at - 500 < other <= at for other in starts) > 12)

    assert count_over_window(starts, 12, window=500) == by_hand
    assert by_hand > 0


def test_a_burst_at_the_edge_of_two_windows_is_seen() -> None:
    # What a fixed window and a token bucket with a burst both let through.
    starts = [59 * _SECOND + n for n in range(10)] + [61 * _SECOND + n for n in range(10)]

    assert count_over_window(starts, 10, window=60 * _SECOND) == 10
    assert count_over_window(starts, 20, window=60 * _SECOND) == 0


def test_places_that_are_always_taken_are_used_fully_and_gaps_are_not() -> None:
    full = [(n * _SECOND, (n + 1) * _SECOND) for n in range(10)]
    half = [(n * _SECOND, n * _SECOND + _SECOND // 2) for n in range(10)]

    tail = [*full, (20 * _SECOND, 21 * _SECOND), (30 * _SECOND, 31 * _SECOND)]

    assert places_used(full, 1, settle=0) == 1
    assert places_used(half, 1, settle=0) == pytest.approx(0.5)
    # The last two had nobody behind them.
    assert places_used(tail, 1, settle=0) == pytest.approx(0.5)
    assert places_used(tail[:-1], 1, settle=0) == 1


def test_starts_in_every_window_as_many_as_allowed_are_used_fully() -> None:
    starts = [window * 60 * _SECOND + n for window in range(5) for n in range(10)]

    assert starts_used(starts, 10, window=60 * _SECOND) == 1
    assert starts_used(starts[::2], 10, window=60 * _SECOND) == 0.5


def test_shares_are_judged_by_jains_index_and_by_the_weights() -> None:
    assert jain([5, 5, 5, 5]) == 1
    assert jain([20, 0, 0, 0]) == 0.25
    assert deviation([10, 20, 30], [1, 2, 3]) == pytest.approx(0)
    assert deviation([15, 20, 25], [1, 2, 3]) == pytest.approx(0.5)
