"""A handler that kills its process: it is a dead letter after exactly three losses, and its neighbours hardly notice.

The first run shares the worker's process, so the neighbours in it lose the run they are in, once and uncharged. From
then on the job runs in a process of its own. With `isolate="process"` it does so from the start, and nobody is touched.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from barnabas.domain.jobs import JobState
from tests.bench.figures import Figure, once, percentile
from tests.chaos.scenarios.books import Books, settled
from tests.chaos.scenarios.door import Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import a_stack, until_well
from tests.support.eventually import eventually
from tests.support.stack import Stack


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the neighbours are left alone first, how many jobs of each kind die, and how long after each."""

    calm_seconds: float
    rounds: int
    rest_seconds: float
    pace: float = 40.0


QUICK = Plan(calm_seconds=3.0, rounds=1, rest_seconds=0.0)
FULL = Plan(calm_seconds=60.0, rounds=5, rest_seconds=20.0, pace=100.0)

_TIMES_MAX = 2.0

_KINDS: dict[str, tuple[str, object]] = {
    # In a process of its own from the start; and in the worker's.
    "alone": ("die", None),
    "shared": ("fail", {"error": "crash"}),
}


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """The neighbours' waits in calm, and beside jobs that die in one way and in the other."""
    figures: list[Figure] = []
    async with a_stack(running) as stack, stack.database() as database:
        await until_well(stack)
        neighbours = await make_tenants(stack, 12, "neighbours")
        async with open_door(stack, neighbours, pace=plan.pace, job=_neighbour) as door:
            await door.until_accepting()
            await asyncio.sleep(plan.calm_seconds)
        await settled(database, neighbours)
        calm = percentile(await _waits(database, neighbours), 0.99)
        figures.append(once("poison.calm", "neighbours' p99 from accept to end, in calm", "ms", calm * 1e3))
        for kind, (job_type, payload) in _KINDS.items():
            own, poisons, accepted = await _poisoned(stack, database, plan, job_type, payload)
            dead = await settled(database, poisons)
            books = await settled(database, own)
            figures += _figures(kind, plan, dead, books, accepted)
            waits = await _waits(database, own)
            late = 100 * sum(wait > _TIMES_MAX * calm for wait in waits) / len(waits)
            figures += [
                once(
                    f"poison.{kind}.ratio",
                    f"neighbours' p99 against calm, {_ABOUT[kind]}",
                    "times",
                    percentile(waits, 0.99) / calm,
                ),
                once(
                    f"poison.{kind}.late",
                    f"neighbours that waited longer than twice calm's p99, {_ABOUT[kind]}",
                    "%",
                    late,
                ),
                once(f"poison.{kind}.longest", f"the longest that one of them waited, {_ABOUT[kind]}", "s", max(waits)),
            ]
        await until_well(stack)
    return figures


_ABOUT = {"alone": "the handler in a process of its own", "shared": "the handler in the worker's process"}


def _figures(kind: str, plan: Plan, dead: Books, books: Books, accepted: Sequence[str]) -> list[Figure]:
    right = sum(row.state is JobState.FAILED and row.reason == "worker_lost" and row.losses == 3 for row in dead.rows)
    about = _ABOUT[kind]
    return [
        once(
            f"poison.{kind}.wrong",
            f"jobs that were no dead letter after three losses, {about}",
            "jobs",
            plan.rounds - right,
        ),
        once(
            f"poison.{kind}.losses",
            f"runs that any neighbour lost, at most, {about}",
            "runs",
            max((row.losses for row in books.rows), default=0),
        ),
        once(
            f"poison.{kind}.charged",
            f"attempts charged to neighbours beyond the first, {about}",
            "attempts",
            books.charged,
        ),
        *books.figures(f"poison.{kind}", accepted),
    ]


async def _poisoned(
    stack: Stack, database: Any, plan: Plan, job_type: str, payload: object
) -> tuple[list[Tenant], list[Tenant], list[str]]:
    """The neighbours' and the poison's tenants, and the neighbours' jobs, once the last poison is dead."""
    own, poisons = await make_tenants(stack, 12, "neighbours"), await make_tenants(stack, 1, "poison")
    async with open_door(stack, own, pace=plan.pace, job=_neighbour) as door:
        for _ in range(plan.rounds):
            await door.until_accepting()
            async with stack.client(poisons[0].key) as client:
                await client.submit(job_type, payload)
            await settled(database, poisons)
            # Whoever lost a run to this one has had another by the time of the next.
            await _none_lost(database, own)
            await until_well(stack)
            await asyncio.sleep(plan.rest_seconds)
    return own, poisons, door.accepted


async def _none_lost(database: Any, tenants: Sequence[Tenant]) -> None:
    async def count() -> int:
        found: int = await database.fetchval(
            "SELECT count(*) FROM jobs WHERE tenant_id = ANY ($1) AND (losses > 0 OR worker_id IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM workers WHERE worker_id = jobs.worker_id AND lease_until > now()))",
            [UUID(tenant.id) for tenant in tenants],
        )
        return found

    await eventually(count, until=lambda left: left == 0, timeout=120)


async def _waits(database: Any, tenants: Sequence[Tenant]) -> list[float]:
    """From accept to end, in seconds, of each ended job of these tenants."""
    rows = await database.fetch(
        "SELECT extract(epoch FROM finished_at - uuid_extract_timestamp(job_id))::float8 AS seconds"
        " FROM job_results WHERE tenant_id = ANY ($1)",
        [UUID(tenant.id) for tenant in tenants],
    )
    return [row["seconds"] for row in rows]


def _neighbour(number: int) -> dict[str, object]:
    """Half of them are in the middle of something at any moment."""
    return {"type": "sleep", "payload": {"seconds": 0.2}} if number % 2 else {"type": "echo", "payload": number}
