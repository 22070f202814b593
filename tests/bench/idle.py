"""What the system takes when nothing happens, however many tenants it has: memory by process, CPU, queries a second.

Nothing keeps a transaction open over several statements when there is nothing to do, so a commit is a query;
autovacuum's are among them.
"""

import asyncio
import time

from tests.bench.figures import Figure, once
from tests.bench.system import System
from tests.bench.tenants import make_gates, make_tenants
from tests.bench.usage import OURS, memory_mb, read_usage


async def measure(system: System, *, tenants: int, seconds: float) -> list[Figure]:
    """Over so many seconds without a job, with that many tenants that have limits."""
    made = await make_tenants(system, "idle", tenants)
    await make_gates(system, made, [{"kind": 1, "allowed": 10, "starts_allowed": 100}])
    # What making them, and the start of a new cluster, set off is over.
    await asyncio.sleep(min(30.0, 2 * seconds))
    before, begin = await read_usage(system.stack, system.database), time.monotonic()
    await asyncio.sleep(seconds)
    after, took = await read_usage(system.stack, system.database), time.monotonic() - begin
    spent = sum(after.cpu_seconds[kind] - before.cpu_seconds[kind] for kind in OURS)
    about = f"idle with {tenants:,} tenants"
    return [
        *[
            once(f"memory_idle.{process}", f"memory idle, {process}", "MB", size)
            for process, size in memory_mb(system.stack).items()
        ],
        once(
            "idle.cpu",
            f"{about}, CPU of all our Python processes",
            "% of a core",
            100 * spent / took,
        ),
        once("idle.queries", f"{about}, queries", "1/s", (after.commits - before.commits) / took),
    ]
