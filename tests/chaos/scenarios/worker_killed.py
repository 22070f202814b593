"""A worker is killed while its jobs run: they run elsewhere within its lease and five seconds, uncharged."""

import os
import signal
from collections import Counter
from dataclasses import dataclass

from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import settled
from tests.chaos.scenarios.door import make_tenants
from tests.chaos.scenarios.instruments import a_stack, until_replaced, until_well
from tests.chaos.scenarios.zombie import held_by_process, submit_sleeps
from tests.support.stack import Stack


@dataclass(frozen=True, slots=True)
class Plan:
    """How many jobs run, how long each, and how often."""

    jobs: int
    rounds: int
    seconds: float = 4.0


QUICK = Plan(jobs=24, rounds=1)
FULL = Plan(jobs=48, rounds=10)


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """Kill the worker that holds the most; how long its jobs stood."""
    delays: list[float] = []
    killed = charged = failed = 0
    async with a_stack(running) as stack:
        for _ in range(plan.rounds):
            await until_well(stack)
            tenants = await make_tenants(stack, 12, "worker-killed")
            names: Counter[int] = Counter({stack.pid(name): 0 for name in ("worker", "worker-2")})
            async with stack.database() as database:
                ids = await submit_sleeps(stack, tenants, jobs=plan.jobs, seconds=plan.seconds)
                held = names + await held_by_process(database, tenants, until=len(ids))
                victim = held.most_common(1)[0][0]
                at = await database.fetchval("SELECT clock_timestamp()")
                os.kill(victim, signal.SIGKILL)
                books = await settled(database, tenants)
                rows = await database.fetch(
                    "SELECT started_at FROM job_results WHERE tenant_id::text = ANY ($1) AND losses > 0",
                    [tenant.id for tenant in tenants],
                )
            delays += [(row["started_at"] - at).total_seconds() for row in rows]
            killed += len(rows)
            charged += books.charged
            failed += books.lost(ids) + books.unwell
            await until_replaced(stack, victim)
    return [
        once("worker_killed.jobs", "jobs that ran when their worker was killed", "jobs", killed),
        once("worker_killed.again", "until they ran elsewhere, at most", "s", max(delays, default=0.0)),
        once("worker_killed.charged", "attempts charged beyond the first", "attempts", charged),
        once("worker_killed.failed", "jobs that did not succeed", "jobs", failed),
    ]
