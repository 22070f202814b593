"""The scale suite: the same work beside 10 thousand, 1 million and 5 million finished rows, on one stack.

Throughput, the start of a job on an idle system, and the list of a tenant's jobs: none of them may care how much has
ended before.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.bench import throughput
from tests.bench.figures import Figure, once, percentile
from tests.bench.load_http import Connection
from tests.bench.scale_rows import add_rows, finished_rows, size_gb
from tests.bench.starts import read_waits, stamp_order
from tests.bench.system import System, Tenant
from tests.bench.tenants import make_tenants
from tests.bench.throughput import Scale

NAMES = ("throughput", "start", "list")
"""What can be asked for."""

_TENANTS = 100
_START_RATE = 50.0


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """How many rows, and how long each measure goes on."""

    rows: tuple[int, ...]
    steady: Scale
    start_seconds: float
    requests: int


FULL = ScalePlan(
    rows=(10_000, 1_000_000, 5_000_000),
    steady=Scale(warm_up_seconds=6.0, windows=6, window_seconds=5.0, outstanding=4_000, burst_jobs=0),
    start_seconds=10.0,
    requests=500,
)
"""For figures."""

QUICK = ScalePlan(
    rows=(10_000, 100_000),
    steady=Scale(warm_up_seconds=2.0, windows=3, window_seconds=1.0, outstanding=4_000, burst_jobs=0),
    start_seconds=2.0,
    requests=100,
)
"""To see whether a change did anything."""

MOMENT = ScalePlan(
    rows=(5_000, 8_000),
    steady=Scale(warm_up_seconds=0.0, windows=1, window_seconds=0.5, outstanding=500, burst_jobs=0),
    start_seconds=0.4,
    requests=10,
)
"""To see whether the suite works."""


async def measure(system: System, *, only: Collection[str], plan: ScalePlan) -> AsyncIterator[Sequence[Figure]]:
    """Level by level, then each level against the first."""
    tenants = await make_tenants(system, "scale", _TENANTS)
    # Connections and caches.
    await _starts(system, seconds=min(1.0, plan.start_seconds))
    seen: dict[str, list[Figure]] = {}
    for rows in plan.rows:
        begin = time.monotonic()
        # What the level before has run counts, too.
        there = await finished_rows(system)
        await add_rows(system, tenants, max(0, rows - there), behind=min(1.0, there / plan.rows[-1]))
        label = f"{rows:,} finished rows"
        figures = [
            once(f"scale.rows.{rows}", f"{label}: there are", "rows", float(await finished_rows(system))),
            once(f"scale.disk.{rows}", f"{label}: database on disk", "GB", await size_gb(system)),
            once(f"scale.made.{rows}", f"{label}: making them took", "s", time.monotonic() - begin),
        ]
        measured = await _level(system, tenants, only, plan, name=str(rows), label=label)
        for kind, figure in measured.items():
            seen.setdefault(kind, []).append(figure)
        yield [*figures, *measured.values()]
    yield [
        once(
            f"scale.{kind}_ratio",
            f"{figures[0].about.partition(': ')[2]}: furthest from that with {plan.rows[0]:,} rows",
            "x",
            _worst(figures),
            more_is_better=figures[0].more_is_better,
        )
        for kind, figures in seen.items()
    ]


def _worst(figures: Sequence[Figure]) -> float:
    """The worst level as a multiple of the first."""
    # A window of half a second may see nothing.
    ratios = [figure.value / (figures[0].value or 1.0) for figure in figures[1:]]
    return min(ratios) if figures[0].more_is_better else max(ratios)


async def _level(
    system: System, tenants: Sequence[Tenant], only: Collection[str], plan: ScalePlan, *, name: str, label: str
) -> dict[str, Figure]:
    measured: dict[str, Figure] = {}
    if "start" in only:
        waits = await _starts(system, seconds=plan.start_seconds)
        for share, kind in ((0.5, "start"), (0.99, "start_p99")):
            about = f"{label}: accept to handler start at {_START_RATE:g} jobs/s, p{100 * share:g}"
            measured[kind] = once(f"scale.{kind}.{name}", about, "ms", 1e3 * percentile(waits, share))
    if "list" in only:
        for kind, query, what in (
            ("list", "limit=50", "GET /v1/jobs, newest 50"),
            ("list_failed", "limit=50&status=failed", "GET /v1/jobs?status=failed, one in a hundred"),
        ):
            seconds = await _list(system, tenants, query, requests=plan.requests)
            measured[kind] = once(f"scale.{kind}.{name}", f"{label}: {what}, p50", "ms", 1e3 * percentile(seconds, 0.5))
    if "throughput" in only:
        (figure, *_) = await throughput.measure_http(system, plan.steady, f"scale.{name}")
        about = f"{label}: end to end, HTTP batches"
        measured["throughput"] = Figure(
            name=f"scale.throughput.{name}",
            about=about,
            unit=figure.unit,
            value=figure.value,
            low=figure.low,
            high=figure.high,
            more_is_better=True,
        )
    return measured


async def _starts(system: System, *, seconds: float) -> list[float]:
    tenants = await make_tenants(system, "start", 1)
    since = await asyncio.to_thread(system.ended.count)
    seen = await system.run_http(stamp_order(system, tenants, rate=_START_RATE, seconds=seconds))
    await system.drained(tenants, seen.accepted, since=since)
    return [wait.seconds for wait in await read_waits(system, tenants)]


async def _list(system: System, tenants: Sequence[Tenant], query: str, *, requests: int) -> list[float]:
    """Seconds of each request, one after another on one connection, the tenants in turn."""
    target = urlsplit(system.stack.told["api_url"])
    assert target.hostname is not None
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(Connection, target.hostname, target.port or 80)
    try:
        seconds = []
        for number in range(requests + len(tenants)):
            request = (
                f"GET /v1/jobs?{query} HTTP/1.1\r\nHost: {target.netloc}\r\n"
                f"Authorization: Bearer {tenants[number % len(tenants)].key}\r\n\r\n"
            ).encode()
            begin = time.perf_counter()
            async with asyncio.timeout(30):
                status, body = await connection.send(request)
            if status != 200:
                raise RuntimeError(f"{status}: {body[:500]!r}")
            # The first of each tenant has its credential looked up.
            if number >= len(tenants):
                seconds.append(time.perf_counter() - begin)
        return seconds
    finally:
        transport.close()
