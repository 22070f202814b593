"""A member joins the workers' group and leaves it again every three seconds, under load.

A job belongs to its lease and not to a partition, so what runs goes on. The member takes its share of the partitions
and reads nothing of them, which is worse than a worker would be.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka import admin as _untyped

from barnabas.contract.topics import DEFAULT_QUEUE, WORK_PARTITIONS, topics_of_queue
from barnabas.domain.attempts import AttemptKind
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from tests.bench.ended import EndedJobs
from tests.bench.figures import Figure, once
from tests.bench.load_http import HttpOrder, HttpSeen
from tests.chaos.scenarios.books import lines, settled
from tests.chaos.scenarios.door import Tenant, make_tenants
from tests.chaos.scenarios.instruments import a_stack, generate, until_well
from tests.chaos.scenarios.zombie import submit_sleeps
from tests.support.stack import Stack

GROUP = "barnabas.worker"
_TOPICS = [topic.name for topic in topics_of_queue(DEFAULT_QUEUE)]
_MEDIUM = _TOPICS[1]
_LOOK_SECONDS = 0.25
_LIMIT_SECONDS = 10.0
_OffsetSpec: Any = _untyped.OffsetSpec  # type: ignore[attr-defined]  # exported without types


@dataclass(frozen=True, slots=True)
class Plan:
    """How long it is calm, and how long not."""

    calm_seconds: float
    storm_seconds: float
    every_seconds: float = 3.0
    rate: float | None = None
    """Jobs a second, where the load is not meant to fill the machine."""


QUICK = Plan(calm_seconds=3.0, storm_seconds=12.0, rate=300.0)
FULL = Plan(calm_seconds=60.0, storm_seconds=300.0)


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """One load over both; what ended in each second of calm and of the storm."""
    async with a_stack(running) as stack, stack.database() as database:
        await until_well(stack)
        kafka = stack.told["kafka"]
        tenants = await make_tenants(stack, 24, "rebalances")
        sleepers = await make_tenants(stack, 4, "long-runs")
        ended, idle = EndedJobs(kafka), IdlePartitions(kafka)
        seconds = plan.calm_seconds + plan.storm_seconds
        load = asyncio.create_task(_load(stack, tenants, plan, seconds=seconds + 5))
        try:
            first = await asyncio.to_thread(ended.count)
            while await asyncio.to_thread(ended.count) == first:
                assert not load.done(), "the load ended before its first job did"
                await asyncio.sleep(0.05)
            calm = await _rate(ended, asyncio.sleep(plan.calm_seconds))
            runs = await submit_sleeps(stack, sleepers, jobs=24, seconds=plan.storm_seconds)
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(idle.keep_looking())
                storm = await _rate(ended, _storm(kafka, plan))
                looking.cancel()
        finally:
            seen = await load
        long_books = await settled(database, sleepers)
        books = await settled(database, tenants)
        moved = await lines(database, sleepers, AttemptKind.HAND_BACK)
        lost = len(runs) - len({row.job for row in long_books.rows if row.losses == 0})
        await until_well(stack)
    return [
        once("rebalances.calm", "jobs ended a second, in calm", "jobs/s", calm),
        once("rebalances.storm", "jobs ended a second, in the storm", "jobs/s", storm),
        once("rebalances.ratio", "of calm's pace, kept in the storm", "%", 100 * storm / calm if calm else 0.0),
        once("rebalances.idle", "longest time that a partition with records stood still", "s", idle.longest),
        once("rebalances.cancelled", "long runs that did not go on to their end", "runs", len(moved) + lost),
        once("rebalances.missing", "accepted jobs without an end", "jobs", seen.accepted - len(books.rows)),
        once("rebalances.twice", "jobs with two ends", "jobs", books.ended_twice + long_books.ended_twice),
        once("rebalances.failed", "jobs that ended other than well", "jobs", books.unwell + long_books.unwell),
    ]


async def _storm(kafka: str, plan: Plan) -> None:
    """A member that is there for half of the time."""
    end = time.monotonic() + plan.storm_seconds
    while time.monotonic() < end:
        async with Consumer(kafka, group=GROUP, topics=_TOPICS, options=ConsumerOptions(remote_assignor="range")):
            await asyncio.sleep(plan.every_seconds / 2)
        await asyncio.sleep(plan.every_seconds / 2)


async def _rate(ended: EndedJobs, meanwhile: Any) -> float:
    begin, before = time.monotonic(), await asyncio.to_thread(ended.count)
    await meanwhile
    return (await asyncio.to_thread(ended.count) - before) / (time.monotonic() - begin)


async def _load(stack: Stack, tenants: Sequence[Tenant], plan: Plan, *, seconds: float) -> HttpSeen:
    order = HttpOrder(
        url=stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="echo",
        pad_bytes=200,
        connections=2,
        seconds=seconds,
        batch=100,
        rate=plan.rate,
        outstanding=5_000,
        kafka=stack.told["kafka"],
    )
    return await generate("tests.bench.load_http", order, HttpSeen, seconds=seconds)


@dataclass(slots=True)
class IdlePartitions:
    """How long a partition of the medium topic has had records and no progress of the group's offset."""

    kafka: str
    longest: float = 0.0
    _since: dict[int, float] = field(default_factory=dict)
    _at: dict[int, int] = field(default_factory=dict)

    async def keep_looking(self) -> None:
        """Until cancelled."""
        client: Any = _untyped.AdminClient({"bootstrap.servers": self.kafka, "log_level": 0})
        while True:
            committed, ends = await asyncio.to_thread(self._look, client)
            now = time.monotonic()
            for number, end in ends.items():
                at = committed.get(number, 0)
                if at >= end or self._at.get(number) != at:
                    self._since[number] = now
                self._at[number] = at
                self.longest = max(self.longest, now - self._since[number])
            await asyncio.sleep(_LOOK_SECONDS)

    def _look(self, client: Any) -> tuple[dict[int, int], dict[int, int]]:
        partitions = [TopicPartition(_MEDIUM, number) for number in range(WORK_PARTITIONS)]
        asked = client.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(GROUP, partitions)], request_timeout=_LIMIT_SECONDS
        )
        offsets = client.list_offsets(
            {partition: _OffsetSpec.latest() for partition in partitions}, request_timeout=_LIMIT_SECONDS
        )
        committed = {each.partition: max(0, each.offset) for each in asked[GROUP].result().topic_partitions}
        return committed, {each.partition: answer.result().offset for each, answer in offsets.items()}
