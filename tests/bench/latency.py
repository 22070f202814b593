"""How long a job waits: on an idle system, and at half of what it can do.

All clocks are those of one machine. "Accept" is the moment that ingest stamps a job with, before it writes it; the
start is read inside the handler; durable completion is when the worker hands the event to Kafka, right after its
commit, as the record's timestamp says to the millisecond.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from confluent_kafka import Consumer, TopicPartition

from barnabas.contract.events import decode_event
from barnabas.contract.topics import RESULTS
from tests.bench.figures import Figure, once, percentiles, split
from tests.bench.load_http import HttpOrder
from tests.bench.system import System, Tenant
from tests.bench.throughput import PAD_BYTES, TENANTS
from tests.bench.webhook_sink import Arrivals
from tests.support.eventually import eventually

IDLE_RATE = 50.0
_IDLE_CONNECTIONS = 8
# Small ones, as a caller at that rate would send: a large batch's own time would be most of the wait.
_HALF_BATCH = 50
_HALF_CONNECTIONS = 4
_WINDOWS = 3
_DRAIN_SECONDS = 90.0


async def measure_idle(system: System, *, seconds: float) -> list[Figure]:
    """50 jobs a second by single posts, each with a webhook."""
    (tenant,) = await system.tenants("idle", 1)
    since = await asyncio.to_thread(system.ended.count)
    async with open_sink() as sink:
        async with system.stack.client(tenant.key) as client:
            await client.create_endpoint(f"http://127.0.0.1:{sink.port}/")
        # The first jobs make connections and fill caches; nobody waits for those twice.
        first = await system.run_http(_order(system, [tenant], seconds=1.0))
        seen = await system.run_http(_order(system, [tenant], seconds=seconds))
        jobs = first.accepted + seen.accepted
        await system.drained([tenant], jobs, since=since)
        await eventually(lambda: _delivered(system, tenant), until=lambda count: count >= jobs, timeout=_DRAIN_SECONDS)
    rows = await _rows(system, tenant, last=seen.accepted)
    assert len(sink.arrivals.by_job) == jobs, f"{jobs} jobs, {len(sink.arrivals.by_job)} of them came as webhooks"
    return [
        *percentiles("idle.call_accepted", "idle, call to 202", split(seen.answers, windows=_WINDOWS)),
        *_starts(rows),
        *percentiles(
            "idle.accept_webhook",
            "idle, accept to webhook received",
            split(
                [(row["accepted"], sink.arrivals.by_job[str(row["job_id"])] - row["accepted"]) for row in rows],
                windows=_WINDOWS,
            ),
        ),
    ]


async def measure_half(system: System, *, jobs_per_second: float, seconds: float) -> list[Figure]:
    """Small batches at half of the measured throughput."""
    tenants = await system.tenants("half", TENANTS)
    before = await asyncio.to_thread(system.ended.offsets)
    order = HttpOrder(
        url=system.stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="echo",
        pad_bytes=PAD_BYTES,
        connections=_HALF_CONNECTIONS,
        seconds=seconds,
        batch=_HALF_BATCH,
        # A window of half a second may have seen nothing.
        rate=max(1.0, jobs_per_second / 2),
    )
    seen = await system.run_http(order)
    await system.drained(tenants, seen.accepted, since=sum(before.values()))
    after = await asyncio.to_thread(system.ended.offsets)
    waits = await asyncio.to_thread(_completions, system.stack.told["kafka"], before, after)
    assert len(waits) >= seen.accepted, f"{seen.accepted} jobs accepted, {len(waits)} events read"
    # The first second has the connections' making in it.
    begin = min(at for at, _ in waits) + 1.0
    return [
        once("half.rate", "offered at half load", "jobs/s", seen.accepted / seen.seconds),
        *percentiles(
            "half.accept_done",
            "half load, accept to durable completion",
            split([pair for pair in waits if pair[0] > begin] or waits, windows=_WINDOWS),
        ),
    ]


@dataclass(slots=True)
class Sink:
    """A running receiver of webhooks."""

    port: int
    arrivals: Arrivals = field(default_factory=lambda: Arrivals({}, 0))
    """Filled when it is closed."""


@asynccontextmanager
async def open_sink() -> AsyncIterator[Sink]:
    """A receiver in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.webhook_sink",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    assert process.stdout is not None
    try:
        sink = Sink(int(await process.stdout.readline()))
        yield sink
        output, _ = await process.communicate(b"")
        sink.arrivals = msgspec.json.decode(output, type=Arrivals)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _order(system: System, tenants: list[Tenant], *, seconds: float) -> HttpOrder:
    return HttpOrder(
        url=system.stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="stamp",
        pad_bytes=PAD_BYTES,
        connections=_IDLE_CONNECTIONS,
        seconds=seconds,
        jobs=int(IDLE_RATE * seconds),
        rate=IDLE_RATE,
    )


async def _delivered(system: System, tenant: Tenant) -> int:
    count: int = await system.database.fetchval(
        "SELECT count(*) FROM deliveries WHERE tenant_id = $1::uuid AND state = 4", tenant.id
    )
    return count


async def _rows(system: System, tenant: Tenant, *, last: int) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = await system.database.fetch(
        "SELECT payload.job_id, extract(epoch FROM payload.created_at)::float8 AS accepted,"
        " extract(epoch FROM ended.started_at)::float8 AS claimed, ended.result"
        " FROM job_payloads AS payload JOIN job_results AS ended USING (tenant_id, job_id)"
        " WHERE payload.tenant_id = $1::uuid ORDER BY payload.job_id DESC LIMIT $2",
        tenant.id,
        last,
    )
    return rows


def _starts(rows: list[Mapping[str, Any]]) -> list[Figure]:
    claims = [(row["accepted"], row["claimed"] - row["accepted"]) for row in rows]
    figures = percentiles("idle.accept_claim", "idle, accept to claim", split(claims, windows=_WINDOWS))
    stamps = [(row["accepted"], msgspec.json.decode(row["result"])) for row in rows]
    accepts = [(accepted, stamp["started"] - accepted) for accepted, stamp in stamps]
    calls = [(accepted, stamp["started"] - stamp["sent"]) for accepted, stamp in stamps]
    figures += percentiles("idle.accept_start", "idle, accept to handler start", split(accepts, windows=_WINDOWS))
    figures += percentiles("idle.call_start", "idle, call to handler start", split(calls, windows=_WINDOWS))
    return figures


def _completions(bootstrap: str, before: Mapping[int, int], after: Mapping[int, int]) -> list[tuple[float, float]]:
    """(when, seconds from accept) of each event between the offsets."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    try:
        grown = [number for number in before if before[number] < after[number]]
        client.assign([TopicPartition(RESULTS.name, number, before[number]) for number in grown])
        missing = sum(after.values()) - sum(before.values())
        waits = []
        while missing:
            records = client.consume(min(500, missing), timeout=10.0)
            assert records, f"{missing} events could not be read"
            for record in records:
                # A job's id begins with the milliseconds of its acceptance.
                job_id: UUID = decode_event(record.value()).job_id
                done = record.timestamp()[1] / 1e3
                waits.append((done, done - (job_id.int >> 80) / 1e3))
            missing -= len(records)
        return waits
    finally:
        client.close()
