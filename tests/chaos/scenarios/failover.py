"""Postgres fails over: a standby is promoted, and the old primary stays up and answers, read-only.

That is the failover which hurts most: connections to the old one stay open and even work for reading. Every service has
to notice by itself, with both hosts in its address, that it has to go to the other one.
"""

import asyncio
import time
from dataclasses import dataclass

from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import settled
from tests.chaos.scenarios.door import make_tenants, open_door
from tests.chaos.scenarios.instruments import a_directory, until_well
from tests.chaos.scenarios.replicas import open_replicas
from tests.support.stack import open_stack


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the load goes on before and after."""

    before_seconds: float
    after_seconds: float
    pace: float = 100.0


QUICK = Plan(before_seconds=2.0, after_seconds=3.0)
FULL = Plan(before_seconds=20.0, after_seconds=60.0)


async def measure(plan: Plan) -> list[Figure]:
    """Demote, promote, wait for the first write; then count what was promised before, during and after."""
    async with (
        a_directory() as directory,
        open_replicas(directory) as replicas,
        open_stack(workers=2, env={"BARNABAS_POSTGRES": replicas.dsn}) as stack,
    ):
        await replicas.follow()
        await until_well(stack)
        tenants = await make_tenants(stack, 4, "failover")
        pids = dict(stack.told["pids"])
        async with open_door(stack, tenants, pace=plan.pace) as door:
            await door.until_accepting()
            await asyncio.sleep(plan.before_seconds)
            demoted_at = time.monotonic()
            await replicas.demote()
            await replicas.promote()
            promoted_at = time.monotonic()
            await door.until_accepting(timeout=180)
            first = door.first_accepted(after=promoted_at)
            assert first is not None
            async with stack.client(tenants[0].key) as client:
                # By now the door writes; the job's end shows that worker and transport do, too.
                job = await client.submit("echo", 1, idempotency_key="after the promotion")
                await client.wait(job.id, timeout=180)
            run_at = time.monotonic()
            await asyncio.sleep(plan.after_seconds)
        await until_well(stack)
        well_at = time.monotonic()
        restarted = {name for name, pid in stack.told["pids"].items() if pids[name] != pid}
        async with stack.database() as database:
            books = await settled(database, tenants)
    return [
        once(
            "failover.blocked",
            "from the demotion to the promotion's end",
            "s",
            promoted_at - demoted_at,
        ),
        once("failover.writes", "from there until the next job was accepted", "s", first.at - promoted_at),
        once("failover.runs", "from there until a new job had run", "s", run_at - promoted_at),
        once("failover.well", "until every service was ready, at most", "s", well_at - promoted_at),
        once("failover.restarts", "services that had to be started anew", "processes", len(restarted)),
        once("failover.accepted", "jobs accepted before, during and after", "jobs", len(door.accepted)),
        once("failover.refused", "of the answers, 503", "answers", door.statuses[503]),
        once("failover.other", "answers that were neither 202 nor 503", "answers", door.other_than(202, 503)),
        *books.figures("failover", door.accepted),
    ]
