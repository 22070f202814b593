"""How large each scenario of the fairness suite is."""

from dataclasses import dataclass, replace


class TooSmallError(Exception):
    """What was in line was gone before it could be measured: on this machine the plan needs more jobs."""


@dataclass(frozen=True, slots=True)
class FairnessPlan:
    """Counts of jobs, and seconds. What is in a queue must outlast what is measured beside it."""

    quiet_seconds: float
    """How long the quiet tenants are watched."""
    flood_jobs: int
    flood_hold_seconds: float
    """What one of them takes: it occupies a slot without taking CPU."""
    hold_seconds: float
    """What a job takes where shares are counted."""
    shares_jobs: int
    """For each of eight tenants."""
    priority_jobs: int
    """For all levels together."""
    partition_jobs: int
    sleeper_jobs: int
    io_jobs: int
    limited_tenants: int
    limited_seconds: float
    """Of each of four rounds."""
    starts: int
    window_seconds: float
    """Of the limits on starts."""
    kills: int
    backlog_jobs: int
    backlog_seconds: float
    """How long the backlog is watched when all of it is there."""


FULL = FairnessPlan(
    quiet_seconds=25.0,
    flood_jobs=100_000,
    flood_hold_seconds=0.25,
    hold_seconds=0.25,
    shares_jobs=5_000,
    priority_jobs=40_000,
    partition_jobs=5_000,
    sleeper_jobs=100,
    io_jobs=30_000,
    limited_tenants=10_000,
    limited_seconds=12.0,
    starts=100_000,
    window_seconds=10.0,
    kills=4,
    backlog_jobs=1_000_000,
    backlog_seconds=30.0,
)
"""For figures."""

QUICK = FairnessPlan(
    quiet_seconds=5.0,
    flood_jobs=15_000,
    flood_hold_seconds=0.25,
    hold_seconds=0.25,
    shares_jobs=2_500,
    priority_jobs=20_000,
    partition_jobs=1_000,
    sleeper_jobs=25,
    io_jobs=8_000,
    limited_tenants=2_000,
    limited_seconds=4.0,
    starts=20_000,
    window_seconds=5.0,
    kills=1,
    backlog_jobs=50_000,
    backlog_seconds=5.0,
)
"""To see whether a change did anything."""

MOMENT = FairnessPlan(
    quiet_seconds=0.8,
    flood_jobs=400,
    flood_hold_seconds=0.2,
    hold_seconds=0.05,
    shares_jobs=150,
    priority_jobs=1_000,
    partition_jobs=40,
    sleeper_jobs=6,
    io_jobs=300,
    limited_tenants=60,
    limited_seconds=0.5,
    starts=500,
    window_seconds=1.0,
    kills=0,
    backlog_jobs=1_000,
    backlog_seconds=0.5,
)
"""To see whether the suite works; for a worker with few slots."""


def with_starts(plan: FairnessPlan, starts: int) -> FairnessPlan:
    """The plan with another number of starts; from 1,000,000 on with limits by the minute, and more kills."""
    if starts < 1_000_000:
        return replace(plan, starts=starts)
    return replace(plan, starts=starts, window_seconds=60.0, kills=20)
