"""Servers that go, come back empty or change places: the short forms, judged by what holds on any machine."""

import pytest

from tests.chaos.scenarios import failover, kafka_wiped, leader_lost, restored
from tests.chaos.scenarios.catalogue import values
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(600)


async def test_a_kafka_that_comes_back_empty_is_told_of_every_open_job_again(stack: Stack) -> None:
    found = values("kafka-wiped", await kafka_wiped.measure(kafka_wiped.QUICK, stack))

    assert found["kafka_wiped.jobs"] == kafka_wiped.QUICK.jobs
    assert found["kafka_wiped.lost"] == found["kafka_wiped.twice"] == found["kafka_wiped.failed"] == 0


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
