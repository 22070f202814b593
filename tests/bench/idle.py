"""What the system takes when nothing happens: memory by process, CPU and commits a second."""

import asyncio
import time

from tests.bench.figures import Figure, once
from tests.bench.system import System
from tests.bench.usage import OURS, memory_mb, read_usage


async def measure(system: System, *, seconds: float) -> list[Figure]:
    """Over so many seconds without a job."""
    before, begin = await read_usage(system.stack, system.database), time.monotonic()
    await asyncio.sleep(seconds)
    after, took = await read_usage(system.stack, system.database), time.monotonic() - begin
    spent = sum(after.cpu_seconds[kind] - before.cpu_seconds[kind] for kind in OURS)
    return [
        *[
            once(f"memory_idle.{process}", f"memory idle, {process}", "MB", size)
            for process, size in memory_mb(system.stack).items()
        ],
        once("idle.cpu", "idle, CPU of all our Python processes", "% of a core", 100 * spent / took),
        once("idle.commits", "idle, commits", "1/s", (after.commits - before.commits) / took),
    ]
