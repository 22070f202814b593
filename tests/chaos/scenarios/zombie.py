"""A worker that comes back after its lease: others have run its jobs, and nothing that it still writes counts.

One stands still as a whole (SIGSTOP), one is cut off from the database while its handlers run on. Every run that it
held is late. What it writes then is refused by the fence, and counted; no second event is told.
"""

import asyncio
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psutil

from tests.bench.figures import Figure, once
from tests.chaos.proxy import Cut, Pass, open_proxy
from tests.chaos.scenarios.books import settled, told_events
from tests.chaos.scenarios.door import Tenant, make_tenants
from tests.chaos.scenarios.instruments import a_stack, another, metric, ops_url, through, until_well
from tests.support.eventually import eventually
from tests.support.stack import Stack

KINDS = {"stopped": "stood still", "cut": "cut off from the database"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How many jobs run, and for how long each."""

    jobs: int
    rounds: int
    seconds: float = 6.0


QUICK = Plan(jobs=24, rounds=1)
FULL = Plan(jobs=80, rounds=5)


@dataclass(slots=True)
class Seen:
    """What the rounds of one kind add up to."""

    late: int = 0
    refused: int = 0
    changed: int = 0
    twice: int = 0
    failed: int = 0


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """Both kinds at once: each has its own tenants, and most of the time is spent on waiting for a lease to end."""
    seen = {kind: Seen() for kind in KINDS}
    async with a_stack(running) as stack:
        for _ in range(plan.rounds):
            await until_well(stack)
            async with asyncio.TaskGroup() as group:
                group.create_task(_stopped(stack, plan, seen["stopped"]))
                group.create_task(_cut(stack, plan, seen["cut"]))
    figures = []
    for kind, about in KINDS.items():
        one, name = seen[kind], f"zombie.{kind}"
        figures += [
            once(f"{name}.late", f"runs that a worker held when its lease ended, {about}", "runs", one.late),
            once(
                f"{name}.refused", f"of those, refused and counted, {about}", "%", 100 * one.refused / max(1, one.late)
            ),
            once(f"{name}.changed", f"second events told, or ends that changed, {about}", "events", one.changed),
            once(f"{name}.twice", f"jobs with two ends, {about}", "jobs", one.twice),
            once(f"{name}.failed", f"jobs that did not succeed, {about}", "jobs", one.failed),
        ]
    return figures


async def _stopped(stack: Stack, plan: Plan, seen: Seen) -> None:
    """Stop the worker that holds the most, let the other run it all, let it go on."""
    tenants = await make_tenants(stack, 12, "zombie")
    names = {stack.pid(name): name for name in ("worker", "worker-2")}
    async with stack.database() as database:
        ids = await submit_sleeps(stack, tenants, jobs=plan.jobs, seconds=plan.seconds)
        held = await held_by_process(database, tenants, until=len(ids))
        victim = max(names, key=lambda pid: held[pid])
        refused = _refused(ops_url(stack, names[victim]))
        before = await refused()
        os.kill(victim, signal.SIGSTOP)
        try:
            # Read again: some may have ended between the look and the signal.
            late = (await held_by_process(database, tenants))[victim]
            await settled(database, tenants)
        finally:
            os.kill(victim, signal.SIGCONT)
        seen.late += late
        await _count(stack, database, tenants, ids, seen, refused, before + late)
        seen.refused += int(await refused() - before)


async def _cut(stack: Stack, plan: Plan, seen: Seen) -> None:
    """Two workers of a queue of their own: the one behind a proxy has all jobs when it is cut off."""
    queue = f"cut-{uuid.uuid4().hex[:8]}"
    dsn = psutil.Process(stack.pid("worker")).environ()["BARNABAS_POSTGRES"]
    port = urlsplit(dsn).port
    assert port is not None
    tenants = await make_tenants(stack, 12, "cut")
    async with open_proxy(port, choice=random.Random(1)) as proxy, stack.database() as database:
        env = {"BARNABAS_QUEUES": queue, "BARNABAS_POSTGRES": through(dsn, proxy.address)}
        async with another(stack, "worker", env) as victim:
            ids = await submit_sleeps(stack, tenants, jobs=plan.jobs, seconds=plan.seconds, queue=queue)
            held = await held_by_process(database, tenants, until=len(ids))
            assert held[victim.pid] == len(ids), "only one worker serves this queue"
            await proxy.set(Cut())
            async with another(stack, "worker", {"BARNABAS_QUEUES": queue}):
                await settled(database, tenants)
                await proxy.set(Pass())
                seen.late += len(ids)
                refused = _refused(victim.ops_url)
                await _count(stack, database, tenants, ids, seen, refused, len(ids))
                seen.refused += int(await refused())


async def _count(
    stack: Stack,
    database: Any,
    tenants: Sequence[Tenant],
    ids: Sequence[str],
    seen: Seen,
    refused: Callable[[], Coroutine[Any, Any, float]],
    expected: float,
) -> None:
    """Once the worker has tried to write all that it held."""
    await eventually(refused, until=lambda count: count >= expected, timeout=90)
    await until_well(stack)
    books = await settled(database, tenants)
    events = await told_events(stack.told["kafka"], ids)
    seen.twice += books.ended_twice
    seen.failed += books.lost(ids) + books.unwell
    seen.changed += sum(events[row.job] != {row.event} for row in books.rows)


def _refused(ops_url: str) -> Callable[[], Coroutine[Any, Any, float]]:
    """How many results a worker has dropped because somebody newer held the job."""
    return lambda: metric(ops_url, "barnabas_superseded_writes_total", 'what="job"')


async def submit_sleeps(
    stack: Stack, tenants: Sequence[Tenant], *, jobs: int, seconds: float, queue: str = "default"
) -> list[str]:
    """Jobs that run for a while, spread over the tenants; their ids."""
    ids = []
    for tenant in tenants:
        async with stack.client(tenant.key) as client:
            batch = [{"type": "sleep", "queue": queue, "payload": {"seconds": seconds}}] * (jobs // len(tenants))
            ids += [str(verdict.id) for verdict in await client.submit_batch(batch)]
    return ids


async def held_by_process(database: Any, tenants: Sequence[Tenant], *, until: int = 0) -> Counter[int]:
    """Running jobs by the process that holds them, once there are `until` of them."""

    async def look() -> Counter[int]:
        rows = await database.fetch(
            "SELECT workers.pid, count(*) AS held FROM jobs JOIN workers USING (worker_id)"
            " WHERE jobs.tenant_id = ANY ($1) AND jobs.state = 3 GROUP BY workers.pid",
            [UUID(tenant.id) for tenant in tenants],
        )
        return Counter({row["pid"]: row["held"] for row in rows})

    return await eventually(look, until=lambda held: held.total() >= until, timeout=60)
