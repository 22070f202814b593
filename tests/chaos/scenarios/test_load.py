"""Too much, too little room, and neighbours that do harm: the short forms, judged by what holds on any machine."""

import pytest

from tests.chaos.scenarios import disk_full, kafka_down, overload, poison, rebalances
from tests.chaos.scenarios.catalogue import values
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(600)


async def test_a_handler_that_kills_its_process_is_a_dead_letter_after_three_losses_at_nobodys_cost(
    stack: Stack,
) -> None:
    found = values("poison", await poison.measure(poison.QUICK, stack))

    for kind in ("alone", "shared"):
        assert found[f"poison.{kind}.wrong"] == found[f"poison.{kind}.charged"] == 0
        assert found[f"poison.{kind}.lost"] == found[f"poison.{kind}.twice"] == found[f"poison.{kind}.failed"] == 0


async def test_what_runs_goes_on_while_members_join_and_leave(stack: Stack) -> None:
    found = values("rebalances", await rebalances.measure(rebalances.QUICK, stack))

    assert found["rebalances.storm"] > 0
    assert found["rebalances.cancelled"] == found["rebalances.missing"] == 0
    assert found["rebalances.twice"] == found["rebalances.failed"] == 0


async def test_the_door_accepts_without_kafka(stack: Stack) -> None:
    found = values("kafka-down", await kafka_down.measure(kafka_down.QUICK, stack))

    assert found["kafka_down.accepted"] > 0
    assert found["kafka_down.refused"] == 0
    assert found["kafka_down.lost"] == found["kafka_down.twice"] == found["kafka_down.failed"] == 0


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
