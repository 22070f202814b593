"""Ten times more than the system can do, at both of its ends: what it can do it goes on doing, in the same memory.

The workers' end: jobs that each hold a slot for a while, accepted ten times faster than slots come free. They wait in
Postgres; nothing is refused. The door's end: an ingest whose Postgres takes so many bytes a second, asked for ten times
as much. What doesn't fit into its memory is refused with 503 and `Retry-After`.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from barnabas_local import ports
from tests.bench.ended import EndedJobs
from tests.bench.figures import Figure, once
from tests.bench.load_http import HttpOrder, HttpSeen
from tests.chaos.proxy import Throttle, open_proxy
from tests.chaos.scenarios.door import Door, Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import SERVICES, another, generate, through, until_well
from tests.support.eventually import eventually
from tests.support.stack import Stack, open_stack

_SLOTS = 16
_HOLD_SECONDS = 0.2
_TIMES = 10
# Full long before a quarter of the overload is over: from there on nothing may grow.
_LOOK_AHEAD_BYTES = 4 * 1024 * 1024
# 16 MiB is the least that ingest may be given for what waits.
_QUEUE_BYTES = 16 * 1024 * 1024
# On each connection. What the budget holds has to be stored long before a client gives up.
_BYTES_PER_SECOND = 2_000_000
_BODY_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the capacity is measured, and how long ten times of it is asked for."""

    capacity_seconds: float
    overload_seconds: float


QUICK = Plan(capacity_seconds=3.0, overload_seconds=8.0)
FULL = Plan(capacity_seconds=30.0, overload_seconds=120.0)


async def measure(plan: Plan) -> list[Figure]:
    """The workers' end first, since its jobs need no other beside them."""
    env = {"BARNABAS_SLOTS": str(_SLOTS), "BARNABAS_LOOK_AHEAD_BYTES": str(_LOOK_AHEAD_BYTES)}
    async with open_stack(app="tests.bench.app:app", env=env) as stack:
        await until_well(stack, workers=1)
        return [*await _at_the_door(stack, plan), *await _at_the_workers(stack, plan)]


async def _at_the_workers(stack: Stack, plan: Plan) -> list[Figure]:
    tenants = await make_tenants(stack, 8, "overload")
    ended = EndedJobs(stack.told["kafka"])
    # A closed loop first: always enough to do, never much more.
    loop = asyncio.create_task(_hold(stack, tenants, seconds=plan.capacity_seconds + 3, outstanding=8 * _SLOTS))
    await _first(ended)
    capacity = await _rate(ended, asyncio.sleep(plan.capacity_seconds))
    accepted = (await loop).accepted
    begin = time.monotonic()
    load = asyncio.create_task(_hold(stack, tenants, seconds=plan.overload_seconds, rate=_TIMES * capacity))
    memory = Memory({name: stack.pid(name) for name in SERVICES})
    try:
        goodput = await _rate(ended, memory.watch(plan.overload_seconds))
    finally:
        seen = await load
    offered = seen.accepted / (time.monotonic() - begin)
    async with stack.database() as database:
        there = await database.fetchval(
            "SELECT (SELECT count(*) FROM jobs WHERE tenant_id::text = ANY ($1))"
            " + (SELECT count(*) FROM job_results WHERE tenant_id::text = ANY ($1))",
            [tenant.id for tenant in tenants],
        )
    return [
        once("overload.workers.capacity", "workers' end: jobs a second that the slots can do", "jobs/s", capacity),
        once("overload.workers.offered", "accepted meanwhile, against capacity", "times", offered / capacity),
        once("overload.workers.goodput", "ended a second in overload, of capacity", "%", 100 * goodput / capacity),
        once("overload.workers.memory", f"growth of {memory.who}, which grew most", "%", memory.growth),
        once("overload.workers.lost", "accepted jobs that are not there", "jobs", accepted + seen.accepted - there),
    ]


async def _at_the_door(stack: Stack, plan: Plan) -> list[Figure]:
    tenants = await make_tenants(stack, 8, "overload-door")
    environment = psutil.Process(stack.pid("ingest")).environ()
    target = urlsplit(environment["BARNABAS_POSTGRES"])
    assert target.port is not None
    port = ports.free_port()
    async with open_proxy(target.port, choice=random.Random(1)) as proxy:
        env = {
            "BARNABAS_HTTP_PORT": str(port),
            "BARNABAS_QUEUE_BYTES_MAX": str(_QUEUE_BYTES),
            "BARNABAS_POSTGRES": through(environment["BARNABAS_POSTGRES"], proxy.address),
            "BARNABAS_POSTGRES_API": through(environment["BARNABAS_POSTGRES_API"], proxy.address),
        }
        async with another(stack, "ingest", env) as extra:
            url = f"http://{ports.LOOPBACK}:{port}"
            await _accepts(url, tenants)
            await proxy.set(Throttle(_BYTES_PER_SECOND))
            # As many requests at once as keep it busy and no more: it refuses nothing.
            async with open_door(url, tenants, pace=10_000, job=_large, requests_max=24) as calm:
                await asyncio.sleep(plan.capacity_seconds)
                capacity = _accepted_rate(calm, plan.capacity_seconds)
            memory = Memory({"ingest": extra.pid})
            pace = _TIMES * capacity
            async with open_door(url, tenants, pace=pace, job=_large, requests_max=1_000) as door:
                # Until it is as full as it will get, it takes more than it can pass on.
                await eventually(lambda: door.statuses[503], timeout=120)
                begin, before = time.monotonic(), len(door.accepted)
                asked = len(door.answers)
                await memory.watch(plan.overload_seconds)
                seconds = time.monotonic() - begin
                goodput = (len(door.accepted) - before) / seconds
                offered = (len(door.answers) - asked) / seconds
            await proxy.set(Throttle(100 * _BYTES_PER_SECOND))
    refused = [answer for answer in door.answers if answer.status == 503]
    async with stack.database() as database:
        there = await database.fetch(
            "SELECT job_id::text AS id FROM job_payloads WHERE tenant_id::text = ANY ($1)",
            [tenant.id for tenant in tenants],
        )
    promised = set(calm.accepted) | set(door.accepted)
    return [
        once("overload.door.capacity", "door's end: posts of 100 KB a second that Postgres takes", "posts/s", capacity),
        once("overload.door.offered", "asked for, against capacity", "times", offered / capacity),
        once("overload.door.goodput", "accepted a second in overload, of capacity", "%", 100 * goodput / capacity),
        once("overload.door.refused", "refused with 503", "posts", len(refused)),
        once(
            "overload.door.no_retry_after",
            "of those, without Retry-After",
            "posts",
            sum(not answer.retry_after for answer in refused),
        ),
        once("overload.door.other", "answers that were neither 202 nor 503", "answers", door.other_than(202, 503)),
        once("overload.door.memory", "growth of ingest over the overload", "%", memory.growth),
        once(
            "overload.door.lost", "accepted jobs that are not there", "jobs", len(promised - {r["id"] for r in there})
        ),
    ]


@dataclass(slots=True)
class Memory:
    """Resident memory of some processes, from a quarter of an overload on: by then everything is in use."""

    pids: dict[str, int]
    who: str = ""
    """The one that grew most."""
    growth: float = 0.0
    """Its growth, in percent of what it had."""

    async def watch(self, seconds: float) -> None:
        """Look at the quarter and at the end."""
        await asyncio.sleep(seconds / 4)
        before = self._sizes()
        await asyncio.sleep(seconds * 3 / 4)
        after = self._sizes()
        self.growth, self.who = max((100 * (after[name] / size - 1), name) for name, size in before.items())

    def _sizes(self) -> dict[str, int]:
        return {name: psutil.Process(pid).memory_info().rss for name, pid in self.pids.items()}


def _large(number: int) -> dict[str, object]:
    """Due only tomorrow: the door's end is to be measured without the other."""
    return {"type": "small", "payload": {"n": number, "pad": "x" * _BODY_BYTES}, "delay_seconds": 80_000}


def _accepted_rate(door: Door, seconds: float) -> float:
    return len(door.accepted) / seconds


async def _accepts(url: str, tenants: Sequence[Tenant]) -> None:
    """Wait until the door at this address is open."""
    async with open_door(url, tenants, pace=5.0) as door:
        await door.until_accepting()


async def _hold(
    stack: Stack,
    tenants: Sequence[Tenant],
    *,
    seconds: float,
    rate: float | None = None,
    outstanding: int | None = None,
) -> HttpSeen:
    order = HttpOrder(
        url=stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="hold",
        hold_seconds=_HOLD_SECONDS,
        pad_bytes=100,
        connections=4,
        seconds=seconds,
        batch=50 if rate is not None else _SLOTS,
        rate=rate,
        outstanding=outstanding,
        kafka=stack.told["kafka"],
    )
    return await generate("tests.bench.load_http", order, HttpSeen, seconds=seconds)


async def _first(ended: EndedJobs) -> None:
    before = await asyncio.to_thread(ended.count)
    await eventually(lambda: asyncio.to_thread(ended.count), until=lambda count: count > before, timeout=60)


async def _rate(ended: EndedJobs, meanwhile: Awaitable[None]) -> float:
    begin, before = time.monotonic(), await asyncio.to_thread(ended.count)
    await meanwhile
    return (await asyncio.to_thread(ended.count) - before) / (time.monotonic() - begin)
