"""What every schedule keeps, whatever its seed."""

import itertools
from functools import cache

import pytest

from tests.chaos.schedule import AT_ONCE_MAX, Kind, Planned, end_of, plan, rounds

SEEDS = range(100)
_LEASE = 10.0


@cache
def _plan(seed: int, seconds: float = 600.0) -> list[Planned]:
    return plan(seed, seconds=seconds, lease_seconds=_LEASE)


def test_the_same_seed_is_the_same_schedule_and_another_is_another() -> None:
    for seed in range(20):
        assert plan(seed, seconds=600.0, lease_seconds=_LEASE) == _plan(seed)
    assert len({tuple(_plan(seed)) for seed in SEEDS}) == len(SEEDS)


def test_ten_minutes_have_every_kind_of_fault() -> None:
    for seed in SEEDS:
        assert {fault.kind for fault in _plan(seed)} == set(Kind)


def test_no_kind_comes_again_before_every_other_came_once() -> None:
    for seed in SEEDS:
        kinds = [fault.kind for fault in _plan(seed)]
        first = kinds[: len(Kind)]
        # Three of the deck are kills, and a round's second may be passed over for one with a target that is free.
        assert len(set(first)) >= len(Kind) - 4


def test_no_moment_has_more_than_two_faults_and_no_target_has_two() -> None:
    for seed in SEEDS:
        faults = _plan(seed)
        for fault in faults:
            together = [other for other in faults if other.at <= fault.at < end_of(other)]
            assert len(together) <= AT_ONCE_MAX
            assert len({other.target for other in together}) == len(together)


def test_between_two_rounds_everything_is_left_alone_for_a_while() -> None:
    for seed in SEEDS:
        grouped = rounds(_plan(seed))
        for earlier, later in itertools.pairwise(grouped):
            assert min(fault.at for fault in later) - max(map(end_of, earlier)) >= 2.0 - 0.01


def test_every_fault_ends_within_the_run() -> None:
    for seed in SEEDS:
        for seconds in (40.0, 75.0, 600.0):
            assert max(map(end_of, _plan(seed, seconds))) <= seconds


def test_only_a_freeze_outlives_a_lease() -> None:
    for seed in SEEDS:
        for fault in _plan(seed):
            if fault.kind is Kind.FREEZE:
                assert fault.seconds > _LEASE
            elif fault.kind is Kind.PAUSE:
                assert fault.seconds < _LEASE


def test_faults_are_numbered_in_the_order_in_which_they_begin() -> None:
    for seed in SEEDS:
        faults = _plan(seed)
        assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
        assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


@pytest.mark.parametrize("seconds", [40.0, 75.0])
def test_a_short_run_has_faults_too(seconds: float) -> None:
    assert all(_plan(seed, seconds) for seed in SEEDS)
