"""How many webhooks a second one notifier process delivers to a receiver that answers at once.

    python -m tests.bench.notifier_deliveries [events] [tenants]

Real Kafka and Postgres of its own, the notifier as a process, the receiver in this one: all of it shares the machine.
"""

import asyncio
import os
import sys
import time

import psutil

from barnabas.contract.events import JobEvent
from tests.integration.notifier.conftest import Post
from tests.support.eventually import eventually
from tests.support.receiver import Receiver, open_receiver
from tests.support.servers import open_servers
from tests.support.world import open_world

_EVENTS = 10_000
_TENANTS = 10
_SLICE = 1_000


async def bench(events: int, tenants: int) -> None:
    async with (
        open_servers() as servers,
        servers.database() as logins,
        open_world(servers, logins) as world,
        open_receiver() as receiver,
    ):
        post = Post(world, receiver)
        told: list[JobEvent] = []
        for number in range(tenants):
            tenant_id = await world.tenant()
            await post.endpoint(tenant_id, receiver.url(f"/{number}"))
            for _ in range(0, events // tenants, _SLICE):
                told += await post.ended_jobs(
                    tenant_id, min(_SLICE, events // tenants), result=b'"%s"' % (b"x" * 1_000)
                )
        receiver.keep_requests = False
        notifier = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "barnabas_notifier.main",
            env=os.environ
            | {
                "BARNABAS_KAFKA": servers.kafka,
                "BARNABAS_POSTGRES": logins.engine_dsn,
                "BARNABAS_ALLOW_PRIVATE_ENDPOINTS": "true",
                "BARNABAS_LOG_LEVEL": "warning",
            },
        )
        process = psutil.Process(notifier.pid)
        try:
            # One alone first, so that joining the group is not measured.
            await post.announce(told[:1])
            await eventually(lambda: receiver.count, until=lambda count: count >= 1, timeout=30)
            await _pace(post, receiver, told[1:501], rate=50)
            cpu = sum(process.cpu_times()[:2])
            count, began = receiver.count, time.monotonic()
            for start in range(501, len(told), _SLICE):
                await post.announce(told[start : start + _SLICE])
            await eventually(lambda: receiver.count, until=lambda got: got >= len(told), timeout=300)
            seconds = time.monotonic() - began
            await eventually(lambda: _open(post), until=lambda left: left == 0, timeout=60)
            sent = receiver.count - count
            cpu = sum(process.cpu_times()[:2]) - cpu
            print(f"{sent} deliveries in {seconds:.1f} s: {sent / seconds:.0f} a second")
            memory = process.memory_info().rss >> 20
            print(f"CPU of the notifier: {cpu / sent * 1e6:.0f} us a delivery; memory {memory} MB")
            print(f"connections used: {receiver.connections}")
        finally:
            notifier.terminate()
            print("exit code", await notifier.wait())


async def _pace(post: Post, receiver: Receiver, told: list[JobEvent], *, rate: int) -> None:
    """Latency at a low rate: from the produce to the request's arrival."""
    arrived = []
    for event in told[:150]:
        before, began = receiver.count, time.monotonic()
        await post.announce([event])
        while receiver.count == before:
            await asyncio.sleep(0.0005)
        arrived.append(time.monotonic() - began)
        await asyncio.sleep(max(0.0, 1 / rate - arrived[-1]))
    await post.announce(told[150:])
    arrived.sort()
    print(f"one at a time: p50 {arrived[75] * 1000:.1f} ms, p99 {arrived[148] * 1000:.1f} ms from produce to request")


async def _open(post: Post) -> int:
    left: int = await post.world.superuser.fetchval("SELECT count(*) FROM deliveries WHERE state < 4")
    return left


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(bench(*(given + [_EVENTS, _TENANTS][len(given) :])))
