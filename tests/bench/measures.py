"""The order of the measures, and how long each takes: what is quiet first, what leaves a backlog last."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from tests.bench import idle, latency, limits, singles, throughput
from tests.bench.figures import Figure, once
from tests.bench.system import System
from tests.bench.throughput import Scale

NAMES = ("idle", "steady", "small", "singles", "bursts", "limits")
"""What can be asked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each measure goes on."""

    http: Scale
    kafka: Scale
    small: Scale
    idle_tenants: int
    idle_seconds: float
    latency_seconds: float
    half_seconds: float
    warm_up_seconds: float
    windows: int
    window_seconds: float


FULL = Plan(
    http=Scale(warm_up_seconds=6.0, windows=12, window_seconds=5.0, outstanding=4_000, burst_jobs=30_000, bursts=5),
    kafka=Scale(warm_up_seconds=6.0, windows=6, window_seconds=5.0, outstanding=4_000, burst_jobs=30_000, bursts=5),
    small=Scale(warm_up_seconds=3.0, windows=4, window_seconds=3.0, outstanding=4_000, burst_jobs=0),
    idle_tenants=1_000,
    idle_seconds=30.0,
    latency_seconds=20.0,
    half_seconds=15.0,
    warm_up_seconds=3.0,
    windows=5,
    window_seconds=3.0,
)
"""For figures."""

QUICK = Plan(
    http=Scale(warm_up_seconds=2.0, windows=3, window_seconds=1.0, outstanding=4_000, burst_jobs=4_000, bursts=1),
    kafka=Scale(warm_up_seconds=2.0, windows=3, window_seconds=1.0, outstanding=4_000, burst_jobs=4_000, bursts=1),
    small=Scale(warm_up_seconds=1.0, windows=2, window_seconds=1.0, outstanding=4_000, burst_jobs=0),
    idle_tenants=1_000,
    idle_seconds=2.0,
    latency_seconds=2.0,
    half_seconds=3.0,
    warm_up_seconds=0.5,
    windows=2,
    window_seconds=1.0,
)
"""To see whether a change did anything."""

MOMENT = Plan(
    http=Scale(warm_up_seconds=0.0, windows=1, window_seconds=0.5, outstanding=1_000, burst_jobs=500, bursts=1),
    kafka=Scale(warm_up_seconds=0.0, windows=1, window_seconds=0.5, outstanding=1_000, burst_jobs=500, bursts=1),
    small=Scale(warm_up_seconds=0.0, windows=1, window_seconds=0.5, outstanding=1_000, burst_jobs=0),
    idle_tenants=20,
    idle_seconds=0.1,
    latency_seconds=0.4,
    half_seconds=0.5,
    warm_up_seconds=0.0,
    windows=1,
    window_seconds=0.4,
)
"""To see whether the benchmark works."""

_END_TO_END = {
    "end_to_end.http_batch": "end to end by HTTP batches",
    "end_to_end.kafka": "end to end by direct Kafka",
}


async def measure(system: System, *, only: Collection[str], plan: Plan) -> AsyncIterator[Sequence[Figure]]:
    """Measure by measure, so that a run can be watched."""
    seen: dict[str, float] = {}
    if "idle" in only:
        yield await idle.measure(system, tenants=plan.idle_tenants, seconds=plan.idle_seconds)
        yield await latency.measure_idle(system, seconds=plan.latency_seconds)
    if "steady" in only:
        steady = await throughput.measure(system, plan.http, plan.kafka)
        yield steady
        seen |= {figure.name: figure.value for figure in steady}
        yield await latency.measure_half(
            system, jobs_per_second=seen["end_to_end.http_batch"], seconds=plan.half_seconds
        )
    if "small" in only:
        yield await throughput.measure_small(system, plan.small)
    if "singles" in only:
        yield await singles.measure(
            system,
            warm_up_seconds=plan.warm_up_seconds,
            windows=plan.windows,
            window_seconds=plan.window_seconds,
        )
    if "bursts" in only:
        yield await throughput.measure_bursts(system, plan.http)
    if "limits" in only:
        measured = await limits.measure(system, windows=plan.windows, window_seconds=plan.window_seconds)
        yield measured
        limit = measured[0].value
        yield [
            once(
                f"ratio.{name}",
                f"{about} as a share of the raw Postgres path",
                "share",
                seen[name] / limit,
                more_is_better=True,
            )
            for name, about in _END_TO_END.items()
            if name in seen
        ]
