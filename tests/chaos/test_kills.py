"""Nothing accepted is lost, whatever is killed: every process at least once, with kill -9, while jobs come in."""

import asyncio
import os
import random
from collections import Counter

import pytest

from tests.chaos.accepts import Accepted, ChaosTenant, submit_all, wishes
from tests.chaos.verdict import violations
from tests.support.eventually import eventually
from tests.support.receiver import Receiver, open_receiver
from tests.support.stack import Stack, open_stack

SEED = int(os.environ.get("CHAOS_SEED", "20261122"))
JOBS = int(os.environ.get("CHAOS_JOBS", "20000"))
PACE = float(os.environ.get("CHAOS_PACE", "600"))
_VICTIMS = ("worker", "notifier", "retry-scheduler", "kafka", "postgres", "ingest")
_TENANTS = 5


@pytest.mark.timeout(900)
async def test_every_accepted_job_ends_once_and_is_delivered_whatever_is_killed() -> None:
    choice = random.Random(SEED)
    async with open_receiver() as receiver, open_stack(workers=2) as stack:
        tenants = [await _tenant(stack, receiver, number) for number in range(_TENANTS)]
        wanted = wishes(tenants, JOBS, choice)
        accepted = Accepted()
        told = stack.told
        async with asyncio.TaskGroup() as group:
            load = group.create_task(
                submit_all(
                    wanted, api_url=told["api_url"], kafka=told["kafka"], accepted=accepted, pace=PACE, choice=choice
                )
            )
            received = Received(receiver, tenants)
            checking = group.create_task(received.keep_verifying())
            killed = await _kill_while(load, stack, choice)
            await load
            async with stack.database() as database:
                await _until_quiet(database)
                await eventually(lambda: len(received.events), until=lambda count: count >= JOBS, timeout=120)
                await _until_quiet(database)
                checking.cancel()
                broken = await violations(database, wanted, accepted, received.events, with_endpoints=True)
        print(f"seed {SEED}: {JOBS} jobs, kills {dict(killed)}, {received.repeated} webhooks came again")

    assert broken == [], f"seed {SEED}: {len(broken)} promises broken, such as {broken[:10]}"
    assert received.unsigned == []
    assert set(killed) == set(_VICTIMS)


class Received:
    """What the endpoint got, verified while its timestamps are fresh."""

    def __init__(self, receiver: Receiver, tenants: list[ChaosTenant]) -> None:
        self._receiver = receiver
        self._secrets = {f"/{tenant.id}": tenant.secret for tenant in tenants}
        self._next = 0
        self.events: Counter[str] = Counter()
        self.unsigned: list[str] = []

    @property
    def repeated(self) -> int:
        """Deliveries beyond the first of an event."""
        return sum(self.events.values()) - len(self.events)

    async def keep_verifying(self) -> None:
        """Until cancelled."""
        while True:
            for request in self._receiver.requests[self._next :]:
                self._next += 1
                try:
                    request.verified(self._secrets[request.path])
                except Exception as error:  # noqa: BLE001 - whatever is wrong with it is what the test reports
                    self.unsigned.append(f"{request.path}: {error}")
                self.events[request.webhook_id] += 1
            await asyncio.sleep(0.1)


async def _tenant(stack: Stack, receiver: Receiver, number: int) -> ChaosTenant:
    tenant_id, key = await stack.tenant(f"chaos-{number}", concurrency=20 if number == 0 else None)
    async with stack.client(key) as client:
        endpoint = await client.create_endpoint(
            receiver.url(f"/{tenant_id}"), retry_schedule_seconds=[0.5, 1, 2, 5, 10, 10, 10]
        )
    assert endpoint.secret is not None
    return ChaosTenant(tenant_id, key, endpoint.secret)


async def _kill_while(load: "asyncio.Task[None]", stack: Stack, choice: random.Random) -> Counter[str]:
    """Kill each victim once in a random order, then go on at random until the load is in."""
    killed: Counter[str] = Counter()
    order = list(_VICTIMS)
    choice.shuffle(order)
    while order or not load.done():
        await asyncio.sleep(choice.uniform(0.5, 3.0))
        victim = order.pop() if order else choice.choice(_VICTIMS)
        await stack.kill(victim)
        killed[victim] += 1
    return killed


async def _until_quiet(database: object) -> None:
    async def left() -> int:
        count: int = await database.fetchval(  # type: ignore[attr-defined]  # an asyncpg connection
            "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM deliveries WHERE state < 4)"
            " + (SELECT count(*) FROM outbox) + (SELECT count(*) FROM lease_batches) + (SELECT count(*) FROM timers)"
        )
        return count

    await eventually(left, until=lambda count: count == 0, timeout=180)
