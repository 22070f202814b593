"""When a lease is over, on both sides."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.leases import BadLeaseError, Lease, is_expired, must_stop

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def expired(*, lease_until: datetime, started: datetime = LONG_AGO, connected: datetime = LONG_AGO) -> bool:
    return is_expired(
        lease_until, now=NOW, server_started_at=started, reaper_connected_at=connected, lease_seconds=10.0
    )


def test_a_lease_is_over_only_after_its_end() -> None:
    assert expired(lease_until=ago(0.001))
    assert not expired(lease_until=NOW)
    assert not expired(lease_until=ago(-5))


def test_a_restart_of_postgres_gives_every_worker_one_full_lease_to_renew() -> None:
    assert not expired(lease_until=ago(60), started=ago(9.9))
    assert expired(lease_until=ago(60), started=ago(10))


def test_a_reaper_that_was_cut_off_waits_one_full_lease_too() -> None:
    assert not expired(lease_until=ago(60), connected=ago(9.9))
    assert expired(lease_until=ago(60), connected=ago(10))


@given(st.floats(1, 3600), st.floats(0, 7200), st.floats(0, 7200), st.floats(-7200, 7200))
def test_nothing_expires_while_either_side_is_younger_than_a_lease(
    lease_seconds: float, server_age: float, reaper_age: float, overdue: float
) -> None:
    is_over = is_expired(
        ago(overdue),
        now=NOW,
        server_started_at=ago(server_age),
        reaper_connected_at=ago(reaper_age),
        lease_seconds=lease_seconds,
    )

    if is_over:
        assert overdue > 0
        # Times have microseconds.
        assert min(server_age, reaper_age) >= lease_seconds - 2e-6


@given(st.floats(0, 1e6), st.floats(1, 3600), st.floats(0, 5), st.floats(0, 7200))
def test_a_worker_stops_before_the_database_lets_anyone_else_in(
    sent_at: float, lease_seconds: float, transit: float, later: float
) -> None:
    database_lease_until = sent_at + transit + lease_seconds
    now = sent_at + later

    if now > database_lease_until:
        assert must_stop(sent_at, now, lease_seconds)
    if later < lease_seconds - 1e-6:
        assert not must_stop(sent_at, now, lease_seconds)


@pytest.mark.parametrize(("seconds", "renew"), [(10.0, 1.0), (3.0, 1.0), (1.0, 0.3), (3600.0, 1200.0)])
def test_a_lease_of_three_renewals_is_enough(seconds: float, renew: float) -> None:
    assert Lease(seconds=seconds, renew_seconds=renew).seconds == seconds


@pytest.mark.parametrize(
    ("seconds", "renew", "field"),
    [
        (2.9, 1.0, "seconds"),
        (0.5, 0.1, "seconds"),
        (3601.0, 1.0, "seconds"),
        (math.nan, 1.0, "seconds"),
        (10.0, 0.0, "renew_seconds"),
        (10.0, math.nan, "renew_seconds"),
    ],
)
def test_a_lease_that_contradicts_its_renewal_is_refused(seconds: float, renew: float, field: str) -> None:
    with pytest.raises(BadLeaseError) as refused:
        Lease(seconds=seconds, renew_seconds=renew)

    assert refused.value.field == field


def test_the_refusal_names_a_value_that_would_do() -> None:
    with pytest.raises(BadLeaseError, match=r"at least 3 renewals: 6 would do"):
        Lease(seconds=5.0, renew_seconds=2.0)
