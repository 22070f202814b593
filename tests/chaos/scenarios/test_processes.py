"""Processes that die, stand still or are told to stop: the short forms, judged by what holds on any machine."""

import pytest

from tests.chaos.scenarios import postgres_killed, sigterm, zombie
from tests.chaos.scenarios.catalogue import values
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(600)


async def test_a_door_without_its_postgres_says_503_and_keeps_what_it_has_promised(stack: Stack) -> None:
    found = values("postgres-killed", await postgres_killed.measure(postgres_killed.QUICK, stack))

    assert found["postgres_killed.accepted"] > 0
    assert found["postgres_killed.other"] == 0
    assert found["postgres_killed.lost"] == found["postgres_killed.twice"] == found["postgres_killed.failed"] == 0


async def test_everything_that_a_worker_writes_after_its_lease_is_refused_and_counted(stack: Stack) -> None:
    found = values("zombie", await zombie.measure(zombie.QUICK, stack))

    for kind in zombie.KINDS:
        assert found[f"zombie.{kind}.late"] > 0
        assert found[f"zombie.{kind}.refused"] == 100
        assert found[f"zombie.{kind}.changed"] == found[f"zombie.{kind}.twice"] == found[f"zombie.{kind}.failed"] == 0


async def test_a_service_that_is_told_to_stop_ends_well_at_the_cost_of_nobody(stack: Stack) -> None:
    found = values("sigterm", await sigterm.measure(sigterm.QUICK, stack))

    assert found["sigterm.stops"] == 4
    assert found["sigterm.unwell"] == found["sigterm.other"] == 0
    assert found["sigterm.lost"] == found["sigterm.twice"] == found["sigterm.failed"] == 0
    assert found["sigterm.charged"] == found["sigterm.undelivered"] == 0
