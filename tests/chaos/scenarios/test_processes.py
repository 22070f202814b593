"""Processes that die, stand still or are told to stop: the short forms, judged by what holds on any machine."""

import pytest

from tests.chaos.clocks.clocks import may_shift
from tests.chaos.scenarios import clocks, postgres_killed, releases, sigterm, upgrade, zombie
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


@pytest.mark.skipif(releases.missing() is not None, reason=str(releases.missing()))
async def test_a_release_replaces_the_last_one_and_is_taken_back_at_the_cost_of_nobody() -> None:
    found = values("upgrade", await upgrade.measure(upgrade.QUICK))

    assert found["upgrade.accepted"] > 0
    assert found["upgrade.applied"] >= len(upgrade.rehearsed())
    assert found["upgrade.other"] == found["upgrade.errors"] == found["upgrade.unwell"] == found["upgrade.undone"] == 0
    assert found["upgrade.lost"] == found["upgrade.twice"] == found["upgrade.failed"] == 0
    assert found["upgrade.charged"] == found["upgrade.losses"] == found["upgrade.told_twice"] == 0
    assert found["upgrade.undelivered"] == found["upgrade.webhooks"] == 0


@pytest.mark.skipif(not may_shift(), reason="needs glibc and a C compiler")
async def test_wrong_clocks_make_nothing_early_nor_lost_nor_refused() -> None:
    found = values("clocks", await clocks.measure(clocks.QUICK))

    assert found["clocks.stamped"] > 0, "no clock was wrong"
    assert found["clocks.webhooks"] > 0
    assert found["clocks.early"] == found["clocks.disordered"] == found["clocks.charged"] == 0
    assert found["clocks.losses"] == found["clocks.ended"] == found["clocks.other"] == 0
    assert found["clocks.lost"] == found["clocks.twice"] == found["clocks.failed"] == 0
    assert found["clocks.refused"] == found["clocks.undelivered"] == 0
