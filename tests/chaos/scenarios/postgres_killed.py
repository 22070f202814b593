"""Postgres is killed again and again under load: the door says 503 and nothing else, and accepts again by itself.

What it has accepted is there, whenever the server died: a 202 is sent after the commit.
"""

import asyncio
import random
import signal
import time
from dataclasses import dataclass

from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import settled
from tests.chaos.scenarios.door import make_tenants, open_door
from tests.chaos.scenarios.instruments import a_stack, postgres_answers, until_well
from tests.support.stack import Stack


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and how long between two."""

    kills: int
    seconds_min: float
    seconds_max: float
    pace: float = 100.0
    seed: int = 1


QUICK = Plan(kills=2, seconds_min=2.0, seconds_max=4.0)
FULL = Plan(kills=12, seconds_min=5.0, seconds_max=40.0)


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """Kill, wait for the server, wait for the first job; then count what was promised."""
    choice = random.Random(plan.seed)
    async with a_stack(running) as stack:
        await until_well(stack)
        tenants = await make_tenants(stack, 4, "postgres-killed")
        recoveries = []
        async with open_door(stack, tenants, pace=plan.pace) as door:
            await door.until_accepting()
            for _ in range(plan.kills):
                await asyncio.sleep(choice.uniform(plan.seconds_min, plan.seconds_max))
                stack.signal("postgres", signal.SIGKILL)
                # The old server's last answers are none of the new one's.
                await asyncio.sleep(0.3)
                back_at = await postgres_answers(stack.told["postgres"])
                first = await door.until_accepting()
                earlier = door.first_accepted(after=back_at)
                recoveries.append(max(0.0, (earlier or first).at - back_at))
        # The stack's own file names the new server only once it has been seen to answer.
        await until_well(stack)
        await postgres_answers(stack.told["postgres"])
        ended_at = time.monotonic()
        async with stack.database() as database:
            books = await settled(database, tenants)
        seconds = time.monotonic() - ended_at
    return [
        once("postgres_killed.kills", "Postgres was killed", "times", plan.kills),
        once("postgres_killed.accepted", "jobs accepted between and during the kills", "jobs", len(door.accepted)),
        once("postgres_killed.refused", "of the answers, 503", "answers", door.statuses[503]),
        once("postgres_killed.other", "answers that were neither 202 nor 503", "answers", door.other_than(202, 503)),
        *books.figures("postgres_killed", door.accepted),
        once(
            "postgres_killed.recovery",
            "from Postgres' first answer to the first job accepted, at most",
            "s",
            max(recoveries),
        ),
        once("postgres_killed.settled", "from the end of the load until all had ended", "s", seconds),
    ]
