"""Each service is told to stop while jobs come in and webhooks go out: it ends well and in time, at nobody's cost.

The supervisor starts it anew, as an orchestrator would. What it still held was handed back, and isn't charged.
"""

import asyncio
import re
import signal
import time
from dataclasses import dataclass

import psutil

from barnabas_local.services import DRAIN_SECONDS
from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import Books, deliveries, settled
from tests.chaos.scenarios.door import Door, Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import SERVICES, a_stack, until_replaced, until_well
from tests.support.eventually import eventually
from tests.support.receiver import Receiver, open_receiver
from tests.support.stack import Stack

DEADLINE_SECONDS = DRAIN_SECONDS + 15.0
"""What the manual asks an orchestrator to wait for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each service is stopped, and under how many posts a second."""

    rounds: int
    pace: float


QUICK = Plan(rounds=1, pace=60.0)
FULL = Plan(rounds=5, pace=200.0)


async def measure(plan: Plan, running: Stack | None = None) -> list[Figure]:
    """Stop each in turn, then count jobs, charges and deliveries."""
    seconds: list[float] = []
    codes: list[str] = []
    async with a_stack(running) as stack, open_receiver() as receiver:
        await until_well(stack)
        tenants = await make_tenants(stack, 6, "sigterm")
        for tenant in tenants:
            await _subscribe(stack, receiver, tenant)
        async with open_door(stack, tenants, pace=plan.pace, job=_job) as door:
            for _ in range(plan.rounds):
                for name in SERVICES:
                    await door.until_accepting()
                    await asyncio.sleep(1.0)
                    took, code = await _stop(stack, name)
                    seconds.append(took)
                    codes.append(code)
                    await until_well(stack)
        async with stack.database() as database:
            books = await settled(database, tenants)
            delivered, again = await deliveries(database, tenants, books)
    return [
        once("sigterm.stops", "services that were told to stop under load", "stops", len(codes)),
        once("sigterm.unwell", "of those, ended other than with exit code 0", "stops", len(codes) - codes.count("0")),
        once("sigterm.seconds", "from SIGTERM to the end of the process, at most", "s", max(seconds)),
        *_counted(door, books),
        once("sigterm.undelivered", "ended jobs without their webhook", "jobs", len(books.rows) - delivered),
        once("sigterm.delivered_again", "deliveries that took more than one attempt", "deliveries", again),
    ]


def _counted(door: Door, books: Books) -> list[Figure]:
    return [
        once("sigterm.accepted", "jobs accepted meanwhile", "jobs", len(door.accepted)),
        once("sigterm.unanswered", "posts without an answer, to no ingest", "posts", door.unknown),
        once("sigterm.other", "answers that were neither 202 nor 503", "answers", door.other_than(0, 202, 503)),
        *books.figures("sigterm", door.accepted),
        once("sigterm.charged", "attempts charged beyond the first", "attempts", books.charged),
        once("sigterm.losses", "runs taken for lost", "runs", sum(row.losses for row in books.rows)),
    ]


def _job(number: int) -> dict[str, object]:
    """Mostly short; some end within the drain, some don't and are handed back."""
    if number % 40 == 0:
        return {"type": "sleep", "payload": {"seconds": 8}}
    if number % 8 == 0:
        return {"type": "sleep", "payload": {"seconds": 1}}
    return {"type": "echo", "payload": number}


async def _subscribe(stack: Stack, receiver: Receiver, tenant: Tenant) -> None:
    async with stack.client(tenant.key) as client:
        await client.create_endpoint(receiver.url(f"/{tenant.id}"), retry_schedule_seconds=[1, 2, 5, 10])


async def _stop(stack: Stack, name: str) -> tuple[float, str]:
    """How long it took to end, and with which code, as the supervisor saw it."""
    seen = len(stack.log("supervisor"))
    begin = time.monotonic()
    process = psutil.Process(stack.signal(name, signal.SIGTERM))
    await eventually(lambda: _has_ended(process), timeout=120)
    took = time.monotonic() - begin
    ending = re.compile(rf" {re.escape(name)} (?:ended with exit code (\d+)|was ended by (signal \d+));")
    found = await eventually(lambda: ending.search(stack.log("supervisor")[seen:]), timeout=60)
    assert found is not None
    # The new one is known before anybody asks whether it is ready.
    await until_replaced(stack, process.pid)
    return took, found[1] or found[2]


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
