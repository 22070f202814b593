"""Hops through the delay topics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.tiers import SLACK_SECONDS, next_tier

TIERS = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)


@pytest.mark.parametrize(
    ("rest", "tier"),
    [
        (7200.0, 3600.0),
        (3600.0, 3600.0),
        (3599.0, 600.0),
        (30.0, 30.0),
        (29.98, 30.0),
        (29.7, 5.0),
        (4.9, 5.0),
        (4.7, 1.0),
        (1.0, 1.0),
        (0.999, None),
        (0.0, None),
        (-20.0, None),
    ],
)
def test_the_largest_tier_that_fits_the_rest_carries_it(rest: float, tier: float | None) -> None:
    assert next_tier(rest, TIERS) == tier


def test_tiers_may_come_in_any_order_and_none_may_fit() -> None:
    assert next_tier(40.0, tuple(reversed(TIERS))) == 30.0
    assert next_tier(40.0, (60.0,)) is None
    assert next_tier(40.0, ()) is None


def test_a_thirty_second_backoff_that_arrives_late_takes_one_hop() -> None:
    assert next_tier(29.98, TIERS) == 30.0
    assert next_tier(29.98 - 30.0, TIERS) is None


@given(st.floats(0, 7200), st.floats(0, 0.5))
def test_hops_end_and_a_record_is_at_most_the_slack_late(wait: float, hop_overhead: float) -> None:
    rest, hops = wait, 0
    while (tier := next_tier(rest, TIERS)) is not None:
        assert tier <= rest + SLACK_SECONDS
        rest -= tier + hop_overhead
        hops += 1

    # What is left is waited out in memory, exactly; what is overdrawn is lateness: the slack and one hop's own time.
    assert -SLACK_SECONDS - hop_overhead - 1e-6 <= rest < 1.0
    assert hops <= 1 + 6 + 5 + 4 + 6 + 5
