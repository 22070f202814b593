"""Single posts: how many a second one ingest process accepts on 64 connections, and how long each waits.

The jobs run meanwhile, as they would. Two processes make the load, so that neither is the limit.
"""

import asyncio
import math

from tests.bench.figures import Figure, median, percentiles
from tests.bench.load_http import HttpOrder
from tests.bench.system import System
from tests.bench.throughput import PAD_BYTES, TENANTS

_CONNECTIONS = 64
_PROCESSES = 2


async def measure(system: System, *, warm_up_seconds: float, windows: int, window_seconds: float) -> list[Figure]:
    """Rate by window, latency over all of them."""
    tenants = await system.tenants("singles", TENANTS)
    since = await asyncio.to_thread(system.ended.count)
    order = HttpOrder(
        url=system.stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="echo",
        pad_bytes=PAD_BYTES,
        connections=_CONNECTIONS // _PROCESSES,
        seconds=warm_up_seconds + windows * window_seconds,
    )
    seen = await asyncio.gather(*[system.run_http(order) for _ in range(_PROCESSES)])
    await system.drained(tenants, sum(one.accepted for one in seen), since=since)
    # Only while all processes were sending.
    begin = max(one.answers[0][0] for one in seen) + warm_up_seconds
    end = min(one.answers[-1][0] for one in seen)
    if begin >= end:
        # They never did so at once: a busy machine, and a short measure.
        begin, end = min(one.answers[0][0] for one in seen), max(one.answers[-1][0] for one in seen)
    length = (end - begin) / windows
    by_window: list[list[float]] = [[] for _ in range(windows)]
    for one in seen:
        for at, seconds in one.answers:
            if begin <= at < end:
                by_window[min(windows - 1, math.floor((at - begin) / length))].append(seconds)
    return [
        median(
            "singles.rate",
            f"single posts, {_CONNECTIONS} connections, one ingest process",
            "jobs/s",
            [len(window) / length for window in by_window],
            more_is_better=True,
        ),
        *percentiles("singles.latency", "single posts at that rate, call to 202", by_window),
    ]
