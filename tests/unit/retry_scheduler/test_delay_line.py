"""The delay line: who leaves when, and where to."""

import random
import tracemalloc

import pytest

from barnabas.contract.topics import DELAY_TIERS
from barnabas.kafka.partitions import TopicPartition
from barnabas_retry_scheduler.delay_line import DelayLine, Resting

TIERS = {topic.delay_seconds: topic.name for topic in DELAY_TIERS}
JOBS = "barnabas.jobs.medium"
RETRIES = TopicPartition("barnabas.retries", 3)


def resting(
    *, due_at: float, leaves_at: float = 0.0, at: TopicPartition = RETRIES, offset: int = 0, destination: str = JOBS
) -> Resting:
    return Resting(leaves_at, due_at, destination, at, offset, 1, b"tenant", b"value")


def travel(delay: float, *, latency: float) -> tuple[list[str], float]:
    """The hops of one record whose every way through Kafka takes `latency`, and how late it arrives."""
    now, due_at = 0.0, delay
    hops: list[str] = []
    arrival = latency
    topic, tier_delay = "barnabas.retries", 0.0
    while True:
        line = DelayLine()
        appended = arrival - latency / 2
        line.add([resting(due_at=due_at, leaves_at=min(appended + tier_delay, due_at), at=TopicPartition(topic, 0))])
        now = arrival
        while not (leaving := line.depart(now, TIERS, limit=10)):
            now = max(line.next_at(now), now + 1e-9)
        topic = leaving[0].topic
        if topic == JOBS:
            return hops, now - due_at
        hops.append(topic.removeprefix("barnabas.delay."))
        tier_delay = next(tier.delay_seconds for tier in DELAY_TIERS if tier.name == topic)
        arrival = now + latency


@pytest.mark.parametrize(
    ("delay", "hops"),
    [
        (0.5, []),
        (1.0, []),
        (1.5, ["1s"]),
        (5.0, ["5s"]),
        (30.0, ["30s"]),
        (35.0, ["30s", "5s"]),
        (120.0, ["2m"]),
        (3_600.0, ["1h"]),
    ],
)
def test_a_delay_takes_the_fewest_hops_and_is_never_early_and_hardly_late(delay: float, hops: list[str]) -> None:
    taken, late = travel(delay, latency=0.02)

    assert taken == hops
    assert 0.0 <= late < 0.05


def test_no_delay_is_ever_early_or_more_than_the_slack_late() -> None:
    chance = random.Random(3)
    for _ in range(300):
        taken, late = travel(chance.uniform(0.01, 4_000.0), latency=chance.uniform(0.001, 0.15))

        assert 0.0 <= late <= 0.35
        # 1 x 1h, 5 x 10m, 4 x 2m, 3 x 30s, 5 x 5s, 4 x 1s.
        assert len(taken) <= 22


def test_a_record_without_a_due_time_leaves_at_once() -> None:
    line = DelayLine()
    line.add([resting(due_at=0.0)])

    assert [each.topic for each in line.depart(100.0, TIERS, limit=10)] == [JOBS]
    assert len(line) == 0


def test_the_last_second_is_waited_out_in_memory_in_order_of_due_times() -> None:
    line = DelayLine()
    line.add([resting(due_at=100.9, offset=1), resting(due_at=100.3, offset=2), resting(due_at=100.6, offset=3)])

    assert line.depart(100.0, TIERS, limit=10) == []
    assert line.next_at(100.0) == 100.3
    assert [each.record.offset for each in line.depart(100.7, TIERS, limit=10)] == [2, 3]
    assert line.next_at(100.7) == 100.9


def test_a_full_heap_holds_its_partition_up_and_no_other() -> None:
    line = DelayLine(heap_full=2)
    other = TopicPartition("barnabas.retries", 4)
    line.add([resting(due_at=100.5, offset=n) for n in range(4)])
    line.add([resting(due_at=200.0, offset=9, at=other)])

    assert [each.record.offset for each in line.depart(100.0, TIERS, limit=10)] == [9]
    assert len(line) == 4
    # It doesn't spin on what can't move: the next look is when the heap has room again.
    assert line.next_at(100.0) == 100.5
    assert len(line.depart(100.5, TIERS, limit=10)) == 4


def test_the_head_of_a_partition_is_waited_for_and_the_earliest_head_decides() -> None:
    line = DelayLine()
    tier = TopicPartition(TIERS[5.0], 0)
    line.add(
        [resting(due_at=900.0, leaves_at=100.4, at=tier, offset=1), resting(due_at=900.0, leaves_at=100.6, at=tier)]
    )

    assert line.depart(100.3, TIERS, limit=10) == []
    assert line.next_at(100.3) == 100.4
    assert [each.record.offset for each in line.depart(100.4, TIERS, limit=10)] == [1]


def test_a_flood_in_one_partition_does_not_keep_the_others_waiting() -> None:
    line = DelayLine()
    quiet = TopicPartition("barnabas.retries", 4)
    line.add(resting(due_at=0.0, offset=n) for n in range(5_000))
    line.add([resting(due_at=0.0, offset=1, at=quiet)])
    first = line.depart(100.0, TIERS, limit=1_000)

    assert any(each.record.at == quiet for each in first)


def test_every_partition_gets_its_turn_when_all_of_them_are_full() -> None:
    line = DelayLine()
    partitions = [TopicPartition("barnabas.retries", n) for n in range(24)]
    served: set[TopicPartition] = set()
    for _ in range(8):
        for at in partitions:
            line.add(resting(due_at=0.0, at=at) for _ in range(1_000))
        served |= {each.record.at for each in line.depart(100.0, TIERS, limit=1_000)}

    assert served == set(partitions)


def test_a_full_partition_is_paused_once_and_resumed_once_it_is_half_empty() -> None:
    line = DelayLine(queue_full=100, queue_low=50)
    line.add(resting(due_at=0.0, offset=n) for n in range(100))

    assert line.to_pause() == [RETRIES]
    assert line.to_pause() == []
    assert line.to_resume() == []

    line.depart(100.0, TIERS, limit=51)

    assert line.to_resume() == [RETRIES]
    assert line.to_resume() == []


def test_a_partition_that_is_gone_takes_its_records_along() -> None:
    line = DelayLine(queue_full=2)
    kept = TopicPartition("barnabas.retries", 4)
    line.add([resting(due_at=100.5), resting(due_at=100.5, at=kept), *(resting(due_at=500.0) for _ in range(3))])
    line.depart(100.0, TIERS, limit=1)
    line.to_pause()
    line.forget([RETRIES])

    assert [each.record.at for each in line.depart(600.0, TIERS, limit=10)] == [kept]
    assert line.to_resume() == []


def test_a_flood_of_delayed_records_costs_no_more_memory_than_what_is_held() -> None:
    line = DelayLine()
    tier = TopicPartition(TIERS[3_600.0], 0)
    tracemalloc.start()
    try:
        read = 0
        paused = False
        for now in range(300):
            # What Kafka would hand out: nothing while the partition is paused.
            if not paused:
                line.add(resting(due_at=9e9, leaves_at=float(now), at=tier, offset=read + n) for n in range(500))
                read += 500
            line.depart(float(now) - 10.0, TIERS, limit=1_000)
            paused = (paused or bool(line.to_pause())) and not line.to_resume()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert read < 300 * 500
    assert len(line) <= 1_500
    assert peak < 5_000_000
