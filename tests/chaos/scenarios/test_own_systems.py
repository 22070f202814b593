"""Single faults that need servers of their own: the short forms, judged by what holds on any machine."""

import pytest

from tests.chaos.clocks.clocks import may_shift
from tests.chaos.scenarios import clocks, disk_full, failover, leader_lost, overload, releases, restored, upgrade
from tests.chaos.scenarios.catalogue import values

pytestmark = pytest.mark.timeout(600)


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


async def test_nothing_acknowledged_is_lost_with_the_leader_of_three_brokers() -> None:
    found = values("leader-lost", await leader_lost.measure(leader_lost.QUICK))

    assert found["leader_lost.kills"] >= 2
    assert found["leader_lost.accepted"] > 0
    assert found["leader_lost.acknowledged"] > 0
    assert found["leader_lost.other"] == 0
    assert found["leader_lost.lost"] == found["leader_lost.twice"] == found["leader_lost.failed"] == 0


async def test_writes_go_to_a_promoted_standby_while_the_old_primary_still_answers() -> None:
    found = values("failover", await failover.measure(failover.QUICK))

    assert found["failover.accepted"] > 0
    assert found["failover.restarts"] == found["failover.other"] == 0
    assert found["failover.lost"] == found["failover.twice"] == found["failover.failed"] == 0


async def test_open_jobs_of_a_restored_dump_go_on_beside_an_empty_kafka() -> None:
    found = values("restored", await restored.measure(restored.QUICK))

    assert found["restored.open"] > 0
    assert found["restored.missing"] == found["restored.vanished"] == found["restored.undelivered"] == 0
    assert found["restored.lost"] == found["restored.twice"] == found["restored.failed"] == 0


async def test_an_overloaded_system_refuses_politely_and_keeps_what_it_accepted() -> None:
    found = values("overload", await overload.measure(overload.QUICK))

    assert found["overload.door.refused"] > 0
    assert found["overload.door.no_retry_after"] == found["overload.door.other"] == 0
    assert found["overload.door.lost"] == found["overload.workers.lost"] == 0


@pytest.mark.skipif(not disk_full.may_mount(), reason="needs the right to mount a small file system")
async def test_nothing_is_accepted_that_a_full_disk_does_not_keep() -> None:
    found = values("disk-full", await disk_full.measure(disk_full.QUICK))

    for store in disk_full.STORES:
        name = f"disk_full.{store}"
        assert found[f"{name}.other"] == 0
        assert found[f"{name}.lost"] == found[f"{name}.twice"] == found[f"{name}.failed"] == 0
