"""Numbers for the metrics that no step comes across on its own way."""

from dataclasses import dataclass
from datetime import datetime

from barnabas.postgres.database import Session


@dataclass(frozen=True, slots=True)
class Urgent:
    """What alerts look at first. Dead letters are those of jobs, then of deliveries, counted up to 100,000."""

    outbox_rows: int
    outbox_oldest_seconds: float
    oldest_dead: list[datetime | None]
    dead_letters: list[int]


@dataclass(frozen=True, slots=True)
class WaitingCounts:
    """What waits in bulk: timers, and deliveries that have not ended by state."""

    timers: int
    pending: int
    parked: int
    running: int
    retrying: int


@dataclass(frozen=True, slots=True)
class Workers:
    """What the scaling asks: live workers, and jobs outside of Kafka that could start."""

    live: int
    waiting: int


async def measure_urgent(session: Session) -> Urgent:
    """The outbox and the open dead letters."""
    row = await session.fetchrow("measure_urgent")
    assert row is not None
    return Urgent(*row)


async def measure_waiting(session: Session) -> WaitingCounts:
    """Timers and open deliveries; counts rows, so ask once a minute."""
    row = await session.fetchrow("measure_waiting")
    assert row is not None
    return WaitingCounts(*row)


async def measure_workers(session: Session) -> Workers:
    """Live workers, and the jobs of backlogs that could start if a slot were free."""
    row = await session.fetchrow("measure_workers")
    assert row is not None
    return Workers(*row)
