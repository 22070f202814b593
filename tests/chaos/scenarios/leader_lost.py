"""A cluster of three brokers loses its leader again and again while jobs come in, at the door and on the intake topic.

In turn it is the one that leads the metadata quorum, which has to be replaced before anything else can be, and the one
that leads most partitions of the jobs topic. Each dies ahead of its followers, with records that nobody else has; the
next one only when every partition has all of its copies again, so that there is always a majority.
"""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from barnabas.contract.topics import DEFAULT_QUEUE, topics_of_queue
from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import settled
from tests.chaos.scenarios.brokers import COPIES, Cluster, open_cluster
from tests.chaos.scenarios.door import Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import a_directory, until_well
from tests.chaos.scenarios.intake import jobs_of, open_intake
from tests.support.stack import open_stack

_TOPIC = topics_of_queue(DEFAULT_QUEUE)[1].name
_KINDS = 2
# What piled up while a busy machine brought its brokers back is worked off by one relay.
_SETTLE_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Plan:
    """For how long leaders are killed (but each kind once at least), and what comes in meanwhile."""

    seconds: float
    calm_seconds: float
    """From a whole cluster to the next kill."""
    ahead_seconds: float = 0.5
    """For how long its followers stand still before a leader dies."""
    posts: float = 60.0
    """At the door, a second."""
    records: float = 30.0
    """On the intake topic, a second."""


QUICK = Plan(seconds=5.0, calm_seconds=1.0)
FULL = Plan(seconds=300.0, calm_seconds=3.0)


@dataclass(frozen=True, slots=True)
class Kill:
    """What became of the cluster, in seconds after a leader's death."""

    led: float
    """Until the others led everything."""
    whole: float
    """Until every partition had all of its copies."""


async def measure(plan: Plan) -> list[Figure]:
    """Kill leaders under load; then count what was promised, and how long nothing went on."""
    async with a_directory() as directory, open_cluster(directory) as cluster:
        env = {"BARNABAS_KAFKA": cluster.bootstrap, "BARNABAS_TOPIC_REPLICATION": str(COPIES)}
        async with open_stack(workers=2, env=env) as stack, stack.database() as database:
            await until_well(stack)
            tenants = await make_tenants(stack, 12, "leader-lost")
            async with (
                open_door(stack, tenants, pace=plan.posts) as door,
                open_intake(cluster.bootstrap, tenants, pace=plan.records) as intake,
            ):
                await door.until_accepting()
                kills = await _kill_leaders(cluster, plan)
            ended_at = time.monotonic()
            await until_well(stack)
            jobs = await jobs_of(cluster.bootstrap, database, tenants, intake.acknowledged)
            books = await settled(database, tenants, timeout=_SETTLE_SECONDS)
            settled_at = time.monotonic()
            ends = await _ends(database, tenants)
    of_all = _longest_gap(itertools.chain.from_iterable(ends.values()))
    return [
        once("leader_lost.kills", "a leader was killed", "times", len(kills)),
        once("leader_lost.led", "until the others led everything, at most", "s", max(kill.led for kill in kills)),
        once("leader_lost.whole", "until every copy was in step again, at most", "s", max(k.whole for k in kills)),
        once("leader_lost.accepted", "jobs accepted at the door meanwhile", "jobs", len(door.accepted)),
        once("leader_lost.acknowledged", "jobs that Kafka acknowledged on the intake topic", "jobs", len(jobs)),
        once("leader_lost.refused", "of the door's answers, 503", "answers", door.statuses[503]),
        once("leader_lost.other", "answers that were neither 202 nor 503", "answers", door.other_than(202, 503)),
        once("leader_lost.gap", "longest time between two ended jobs", "s", of_all),
        once(
            "leader_lost.tenant_gap",
            "longest time between two ended jobs of one tenant",
            "s",
            max(map(_longest_gap, ends.values())),
        ),
        *books.figures("leader_lost", [*door.accepted, *jobs]),
        once("leader_lost.settled", "from the end of the load until all had ended", "s", settled_at - ended_at),
    ]


async def _kill_leaders(cluster: Cluster, plan: Plan) -> list[Kill]:
    kills: list[Kill] = []
    await cluster.until_whole()
    begin = time.monotonic()
    while len(kills) < _KINDS or time.monotonic() < begin + plan.seconds:
        await asyncio.sleep(plan.calm_seconds)
        leader = await (cluster.leads_most(_TOPIC) if len(kills) % _KINDS else cluster.controller())
        await cluster.kill(leader, ahead_seconds=plan.ahead_seconds)
        killed_at = time.monotonic()
        await cluster.until_led_without(leader)
        led = time.monotonic() - killed_at
        await cluster.brokers[leader].start()
        await cluster.until_whole()
        kills.append(Kill(led, time.monotonic() - killed_at))
    return kills


async def _ends(database: Any, tenants: Sequence[Tenant]) -> dict[UUID, list[datetime]]:
    """When each tenant's jobs ended."""
    rows = await database.fetch(
        "SELECT tenant_id, finished_at FROM job_results WHERE tenant_id = ANY ($1)",
        [UUID(tenant.id) for tenant in tenants],
    )
    ends = defaultdict(list)
    for row in rows:
        ends[row["tenant_id"]].append(row["finished_at"])
    return dict(ends)


def _longest_gap(moments: Iterable[datetime]) -> float:
    """Between two that follow each other, in seconds."""
    in_order = sorted(moments)
    return max((after - before).total_seconds() for before, after in itertools.pairwise(in_order))
