"""Jobs a second from end to end: accepted, run, succeeded in Postgres, and the event published.

The load keeps a bounded number of jobs on the way, so what is measured is the whole path's own pace and not the growth
of a backlog. Every job is counted twice at the end, as a row and as an event, against what was accepted.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.bench.figures import Figure, median, once
from tests.bench.load_http import HttpOrder
from tests.bench.load_kafka import KafkaOrder
from tests.bench.system import Counts, System, Tenant
from tests.bench.usage import OURS, Usage, memory_mb, read_usage

# With the envelope about 1 KB.
PAD_BYTES = 960
TENANTS = 8
BATCH = 500
CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """How long a measure goes on."""

    warm_up_seconds: float
    windows: int
    window_seconds: float
    outstanding: int
    burst_jobs: int
    bursts: int = 0
    """One is over in two seconds, and says little."""

    @property
    def seconds(self) -> float:
        """Of load, with a margin so that the last window is full."""
        return self.warm_up_seconds + self.windows * self.window_seconds + 0.5


Start = Callable[[list[Tenant]], Coroutine[Any, Any, int]]
"""Starts a load; returns how many jobs were accepted in all."""


async def measure_small(system: System, scale: Scale) -> list[Figure]:
    """What a job costs whose result is a few bytes: where the payload is 1 KB and the answer isn't."""

    async def by_http(tenants: list[Tenant]) -> int:
        order = _http_order(system, tenants, seconds=scale.seconds)
        order.outstanding, order.kafka = scale.outstanding, system.stack.told["kafka"]
        order.job_type = "small"
        return (await system.run_http(order)).accepted

    figures = await _steady(system, scale, "http_small", f"HTTP batches of {BATCH}, small results", by_http)
    return [figure for figure in figures if not figure.name.startswith("memory_busy.")]


async def measure_http(system: System, scale: Scale, name: str) -> list[Figure]:
    """HTTP batches only; the pace comes first."""

    async def by_http(tenants: list[Tenant]) -> int:
        order = _http_order(system, tenants, seconds=scale.seconds)
        order.outstanding, order.kafka = scale.outstanding, system.stack.told["kafka"]
        return (await system.run_http(order)).accepted

    return await _steady(system, scale, name, f"HTTP batches of {BATCH}", by_http)


async def measure(system: System, http: Scale, kafka: Scale) -> list[Figure]:
    """Both ways in, and what a job costs on each."""

    async def by_kafka(tenants: list[Tenant]) -> int:
        order = _kafka_order(system, tenants, seconds=kafka.seconds)
        order.outstanding = kafka.outstanding
        return (await system.run_kafka(order)).acknowledged

    return [
        *await measure_http(system, http, "http_batch"),
        *await _steady(system, kafka, "kafka", "direct Kafka", by_kafka),
    ]


async def measure_bursts(system: System, scale: Scale) -> list[Figure]:
    """How fast jobs are accepted when nobody waits for them, and how fast the backlog is worked off."""

    async def by_http(tenants: list[Tenant]) -> int:
        order = _http_order(system, tenants, seconds=60.0)
        order.jobs = scale.burst_jobs
        return (await system.run_http(order)).accepted

    async def by_kafka(tenants: list[Tenant]) -> int:
        order = _kafka_order(system, tenants, seconds=60.0)
        order.jobs = scale.burst_jobs
        return (await system.run_kafka(order)).acknowledged

    return [
        *await _bursts(system, "http_batch", f"HTTP batches of {BATCH}", by_http, scale.bursts),
        *await _bursts(system, "kafka", "direct Kafka", by_kafka, scale.bursts),
    ]


async def _bursts(system: System, name: str, about: str, start: Start, times: int) -> list[Figure]:
    seen = [await _burst(system, f"{name}-{number}", start) for number in range(times)]
    with system.standing_still("worker"):
        alone = await _accepted(system, f"{name}-alone", start)
    await system.drained(alone.tenants, alone.jobs, since=alone.before.ended)
    jobs = alone.jobs
    return [
        median(
            f"burst.{name}",
            f"accepted in a burst of {jobs:,}, {about}",
            "jobs/s",
            [one.accepted.rate for one in seen],
            more_is_better=True,
        ),
        *[
            once(f"burst_cores.{name}.{kind}", f"cores taken meanwhile, {about}, {kind}", "cores", cores)
            for kind, cores in seen[-1].accepted.cores.items()
        ],
        once(
            f"burst_alone.{name}",
            f"accepted in a burst of {jobs:,} while the worker stands still, {about}",
            "jobs/s",
            alone.rate,
            more_is_better=True,
        ),
        median(
            f"drain.{name}",
            f"from there until 99 % have ended, {about}",
            "jobs/s",
            [one.drained_rate for one in seen],
            more_is_better=True,
        ),
        median(f"drain_tail.{name}", f"and then until all have, {about}", "s", [one.tail_seconds for one in seen]),
    ]


async def _steady(system: System, scale: Scale, name: str, about: str, start: Start) -> list[Figure]:
    tenants = await system.tenants(name, TENANTS)
    before = await system.counts()
    load = asyncio.create_task(start(tenants))
    marks: list[Counts] = []
    usages: list[Usage] = []
    try:
        # Generators need a moment to start; the first job that ends begins the warm-up.
        while not load.done() and (await system.counts()).ended == before.ended:
            await asyncio.sleep(0.02)
        await asyncio.sleep(scale.warm_up_seconds)
        usages.append(await read_usage(system.stack, system.database))
        marks.append(await system.counts())
        for _ in range(scale.windows):
            await asyncio.sleep(scale.window_seconds)
            marks.append(await system.counts())
        usages.append(await read_usage(system.stack, system.database))
        memory = memory_mb(system.stack)
    finally:
        accepted = await load
    await system.drained(tenants, accepted, since=before.ended)
    return [
        median(
            f"end_to_end.{name}",
            f"end to end, {about}",
            "jobs/s",
            [(b.ended - a.ended) / (b.at - a.at) for a, b in pairwise(marks)],
            more_is_better=True,
        ),
        median(
            f"accepted.{name}",
            f"accepted at that pace, {about}",
            "jobs/s",
            [(b.accepted - a.accepted) / (b.at - a.at) for a, b in pairwise(marks)],
            more_is_better=True,
        ),
        *_costs(name, about, usages, marks),
        *[
            once(f"memory_busy.{name}.{process}", f"memory under load, {about}, {process}", "MB", size)
            for process, size in memory.items()
        ],
    ]


def _costs(name: str, about: str, usages: Sequence[Usage], marks: Sequence[Counts]) -> list[Figure]:
    before, after = usages
    jobs = max(1, marks[-1].ended - marks[0].ended)
    cpu = {kind: (after.cpu_seconds[kind] - spent) / jobs * 1e6 for kind, spent in before.cpu_seconds.items()}
    updates = after.updates - before.updates
    return [
        once(
            f"cpu.{name}.python",
            f"CPU of all our Python processes, {about}",
            "µs/job",
            sum(spent for kind, spent in cpu.items() if kind in OURS),
        ),
        *[once(f"cpu.{name}.{kind}", f"CPU of {kind}, {about}", "µs/job", spent) for kind, spent in cpu.items()],
        once(f"wal.{name}", f"WAL, {about}", "bytes/job", (after.wal_bytes - before.wal_bytes) / jobs),
        once(f"commits.{name}", f"commits, {about}", "per job", (after.commits - before.commits) / jobs),
        once(
            f"hot.{name}",
            f"HOT share of the updates of jobs, {about}",
            "share",
            (after.hot_updates - before.hot_updates) / max(1, updates),
            more_is_better=True,
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A burst up to the moment in which all of it was accepted."""

    tenants: list[Tenant]
    jobs: int
    before: Counts
    at_last: Counts
    rate: float
    cores: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Burst:
    """A burst to its end."""

    accepted: _Accepted
    drained_rate: float
    tail_seconds: float


async def _accepted(system: System, name: str, start: Start) -> _Accepted:
    tenants = await system.tenants(f"burst-{name}", TENANTS)
    before = await system.counts()
    used = await read_usage(system.stack, system.database)
    load = asyncio.create_task(start(tenants))
    # The last look that saw nothing accepted: the generator needs a moment to start.
    first = now = before
    while not load.done() or now.accepted - before.accepted < load.result():
        await asyncio.sleep(0.02)
        now = await system.counts()
        if now.accepted == before.accepted:
            first = now
        assert now.at - before.at < 90, f"{now.accepted - before.accepted} jobs accepted after 90 s"
    seconds = now.at - first.at
    spent = (await read_usage(system.stack, system.database)).cpu_seconds
    return _Accepted(
        tenants,
        await load,
        before,
        now,
        (now.accepted - first.accepted) / seconds,
        {kind: (spent[kind] - was) / seconds for kind, was in used.cpu_seconds.items()},
    )


async def _burst(system: System, name: str, start: Start) -> _Burst:
    accepted = await _accepted(system, name, start)
    jobs, before, now = accepted.jobs, accepted.before, accepted.at_last
    looks = [now]
    while looks[-1].ended - before.ended < jobs:
        await asyncio.sleep(0.02)
        looks.append(await system.counts())
        assert looks[-1].at - now.at < 90, f"{looks[-1].ended - before.ended} of {jobs} jobs ended after 90 s"
    await system.drained(accepted.tenants, jobs, since=before.ended)
    # The last hundredth apart: a record told twice must neither look like a slow system nor be overlooked.
    bulk = next(look for look in looks if look.ended - before.ended >= 0.99 * jobs)
    return _Burst(
        accepted,
        (bulk.ended - now.ended) / (bulk.at - now.at) if bulk is not now else 0.0,
        looks[-1].at - bulk.at,
    )


def _http_order(system: System, tenants: Sequence[Tenant], *, seconds: float) -> HttpOrder:
    return HttpOrder(
        url=system.stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="echo",
        pad_bytes=PAD_BYTES,
        connections=CONNECTIONS,
        seconds=seconds,
        batch=BATCH,
    )


def _kafka_order(system: System, tenants: Sequence[Tenant], *, seconds: float) -> KafkaOrder:
    return KafkaOrder(
        kafka=system.stack.told["kafka"],
        tenants=[(tenant.id, tenant.key) for tenant in tenants],
        job_type="echo",
        pad_bytes=PAD_BYTES,
        seconds=seconds,
    )
