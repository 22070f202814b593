"""Kafka is gone for a while: the door accepts as before, and what piled up is worked off at full rate afterwards."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import settled
from tests.chaos.scenarios.door import Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import a_stack, held_down, kafka_answers, until_well
from tests.support.stack import Stack

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """How long it is gone, and how many posts a second come meanwhile."""

    down_seconds: float
    pace: float
    calm_jobs: int
    """A burst without a fault, whose pace is the full rate."""


QUICK = Plan(down_seconds=5.0, pace=60.0, calm_jobs=400)
FULL = Plan(down_seconds=600.0, pace=100.0, calm_jobs=60_000)


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """A burst in calm; then no Kafka; then Kafka again."""
    async with a_stack(running) as stack, stack.database() as database:
        await until_well(stack)
        calm = await _calm_rate(stack, database, plan)
        tenants = await make_tenants(stack, 8, "kafka-down")
        async with open_door(stack, tenants, pace=plan.pace) as door:
            await door.until_accepting()
            async with held_down(stack, "kafka"):
                gone_at = time.monotonic()
                await asyncio.sleep(plan.down_seconds)
                last_at = time.monotonic()
            # Until Kafka runs again the supervisor may need another try: it is still gone.
            back_at = await kafka_answers(stack.told["kafka"])
        waiting = await _open(database, tenants)
        books = await settled(database, tenants, timeout=900)
        drained_at = time.monotonic()
        await until_well(stack)
    meanwhile = [answer for answer in door.answers if gone_at <= answer.sent_at <= last_at]
    refused = sum(answer.status != 202 for answer in meanwhile)
    slowest = max((answer.at - answer.sent_at for answer in meanwhile), default=0.0)
    rate = waiting / (drained_at - back_at)
    return [
        once("kafka_down.seconds", "Kafka was gone", "s", back_at - gone_at),
        once("kafka_down.accepted", "jobs accepted meanwhile", "jobs", len(meanwhile) - refused),
        once("kafka_down.refused", "posts that were not accepted meanwhile", "posts", refused),
        once("kafka_down.slowest", "the slowest answer meanwhile", "s", slowest),
        once("kafka_down.waiting", "jobs that had piled up", "jobs", waiting),
        once("kafka_down.calm", "full rate: as many in one burst without a fault", "jobs/s", calm),
        once("kafka_down.drained", "from Kafka's first answer until all had ended", "jobs/s", rate),
        once("kafka_down.ratio", "of the full rate", "%", 100 * rate / calm),
        *books.figures("kafka_down", door.accepted),
    ]


async def _calm_rate(stack: Stack, database: Any, plan: Plan) -> float:
    """Accepted in one burst, until all have ended: how many a second from the last accept on, and before."""
    tenants = await make_tenants(stack, 8, "calm")
    begin = time.monotonic()
    for tenant in tenants:
        async with stack.client(tenant.key) as client:
            share = plan.calm_jobs // len(tenants)
            for start in range(0, share, _BATCH):
                batch = [{"type": "echo", "payload": number} for number in range(min(_BATCH, share - start))]
                await client.submit_batch(batch)
    books = await settled(database, tenants, timeout=600)
    return len(books.rows) / (time.monotonic() - begin)


async def _open(database: Any, tenants: Sequence[Tenant]) -> int:
    count: int = await database.fetchval(
        "SELECT count(*) FROM jobs WHERE tenant_id = ANY ($1)", [UUID(tenant.id) for tenant in tenants]
    )
    return count
