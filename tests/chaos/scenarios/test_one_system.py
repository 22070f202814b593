"""Single faults on one system, which is well again after each: the short forms, judged by what holds on any machine."""

import pytest

from tests.chaos.scenarios import kafka_down, kafka_wiped, poison, postgres_killed, rebalances, sigterm, zombie
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


async def test_a_kafka_that_comes_back_empty_is_told_of_every_open_job_again(stack: Stack) -> None:
    found = values("kafka-wiped", await kafka_wiped.measure(kafka_wiped.QUICK, stack))

    assert found["kafka_wiped.jobs"] == kafka_wiped.QUICK.jobs
    assert found["kafka_wiped.lost"] == found["kafka_wiped.twice"] == found["kafka_wiped.failed"] == 0


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
