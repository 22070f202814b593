"""What a job costs the ingest process: `python -m tests.bench.ingest_step [http|kafka] [jobs]`.

One ingest inside this process, on servers of its own: a process sends batches of 500 jobs of 1 KB, and as many records
lie on the intake topic before it is read. CPU, so that a busy machine matters little: of the event loop's thread, and
of all threads (the Kafka clients have some), without what it takes to start. Measured on 2 cores: 12.4 and 13.6 us for
HTTP, 14.1 and 18.7 for the intake.
"""

import asyncio
import gc
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import uvloop

from barnabas.contract.topics import Topic
from barnabas.domain.keys import hash_secret, make_key, prefix_of
from barnabas.kafka.admin import Admin
from barnabas.postgres.tenants import create_api_key
from barnabas.runtime import logs
from barnabas.runtime.settings import load
from barnabas.runtime.stop import Stop
from barnabas_ingest.intake import Intake
from barnabas_ingest.resources import Resources, open_resources
from barnabas_ingest.server import serve_http
from barnabas_ingest.settings import IngestSettings
from barnabas_local.database import Logins
from tests.bench.load_http import HttpOrder, HttpSeen
from tests.bench.throughput import BATCH, CONNECTIONS, PAD_BYTES, TENANTS
from tests.support.servers import Servers, open_servers
from tests.support.world import World, open_world

Key = tuple[str, bytes]
"""A tenant's id and a credential of its own."""

_STORED = "SELECT coalesce(sum(next_offset), 0)::bigint FROM intake_offsets"
_ADMIN_KEY = "the-administrator-s-own-key-of-the-bench"
_WARM_UP_JOBS = 5_000
_PAYLOAD = b'{"sent":1754000000.000000,"seconds":0,"pad":"%b"}' % (b"x" * PAD_BYTES)
_JOB = b'{"type":"echo","priority":"medium","payload":%b}' % _PAYLOAD


async def measure(servers: Servers, way: str, jobs: int) -> None:
    """Print the cost of one way in."""
    async with AsyncExitStack() as stack:
        logins = await stack.enter_async_context(servers.database())
        world = await stack.enter_async_context(open_world(servers, logins))
        resources = await stack.enter_async_context(open_resources(_settings(servers, logins)))
        keys = [await _key(world, resources) for _ in range(TENANTS)]
        await _WAYS[way](world, resources, keys, jobs)


async def _by_http(world: World, resources: Resources, keys: list[Key], jobs: int) -> None:
    stop = Stop()
    serving = asyncio.create_task(serve_http(resources, stop))

    async def load(count: int) -> None:
        order = HttpOrder(
            url=f"http://127.0.0.1:{resources.http_port}",
            keys=[key.decode() for _, key in keys],
            job_type="echo",
            pad_bytes=PAD_BYTES,
            connections=CONNECTIONS,
            seconds=600.0,
            batch=BATCH,
            jobs=count,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.load_http", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        seen, _ = await process.communicate(msgspec.json.encode(order))
        assert msgspec.json.decode(seen, type=HttpSeen).accepted == count, "every job is accepted"

    await load(_WARM_UP_JOBS)
    await _timed("HTTP batches", jobs, lambda: load(jobs))
    stop.set()
    await serving


async def _by_kafka(world: World, resources: Resources, keys: list[Key], jobs: int) -> None:
    async with Admin(world.kafka) as admin:
        topic = f"barnabas.intake.bench-{uuid.uuid4().hex}"
        await admin.ensure_topics(topics=[Topic(topic, "tenant", 3_600_000)])
        # Written before it is read: what it takes to write is no part of the measure.
        for begin in range(0, _WARM_UP_JOBS + jobs, BATCH):
            tenant, key = keys[begin // BATCH % len(keys)]
            await world.producer.send(topic, [(tenant.encode(), _JOB, [("authorization", key)])] * BATCH)

        async def read_all(count: int) -> None:
            stop = Stop()
            intake = Intake(resources, admin, topic=topic)
            async with intake.consumer(topic) as consumer:
                reading = asyncio.create_task(intake.run(consumer, stop))
                while await world.superuser.fetchval(_STORED) < count:
                    await asyncio.sleep(0.05)
                stop.set()
                await reading

        await read_all(_WARM_UP_JOBS)
        # What the first reading took beyond the warm-up's jobs is no part of the measure either.
        before = await world.superuser.fetchval(_STORED)
        rest = _WARM_UP_JOBS + jobs - before
        await _timed("intake records", rest, lambda: read_all(_WARM_UP_JOBS + jobs))


_WAYS: dict[str, Callable[[World, Resources, list[Key], int], Awaitable[None]]] = {
    "http": _by_http,
    "kafka": _by_kafka,
}


async def _timed(name: str, jobs: int, step: Callable[[], Awaitable[None]]) -> None:
    began, loop_cpu, cpu = time.monotonic(), time.thread_time(), time.process_time()
    await step()
    loop_us = (time.thread_time() - loop_cpu) / jobs * 1e6
    cpu_us = (time.process_time() - cpu) / jobs * 1e6
    pace = jobs / (time.monotonic() - began)
    print(f"{name}: loop {loop_us:.1f}, all threads {cpu_us:.1f} us of CPU a job ({pace:,.0f}/s here and now)")


async def _key(world: World, resources: Resources) -> Key:
    tenant_id, key_id, secret = await world.tenant(), resources.ids.mint(), resources.random_bytes(32)
    key = make_key(key_id, secret)
    await create_api_key(
        resources.database, tenant_id, key_id, name="", prefix=prefix_of(key), secret_hash=hash_secret(secret)
    )
    return str(tenant_id), key.encode()


def _settings(servers: Servers, logins: Logins) -> IngestSettings:
    return load(
        IngestSettings,
        {
            "BARNABAS_KAFKA": servers.kafka,
            "BARNABAS_POSTGRES": logins.engine_dsn,
            "BARNABAS_POSTGRES_API": logins.api_dsn,
            "BARNABAS_ADMIN_KEY": _ADMIN_KEY,
            "BARNABAS_HTTP_PORT": "0",
        },
    )


async def _run(ways: list[str], jobs: int) -> None:
    async with open_servers() as servers:
        for way in ways:
            await measure(servers, way, jobs)


def main() -> None:
    """Measure the ways that are named, or all."""
    logs.configure(service="bench", level="error", form="console")
    ways = [word for word in sys.argv[1:] if word in _WAYS] or list(_WAYS)
    jobs = next((int(word) for word in sys.argv[1:] if word.isdecimal()), 50_000)
    # As in the service.
    gc.set_threshold(10_000)
    uvloop.run(_run(ways, jobs))


if __name__ == "__main__":
    main()
