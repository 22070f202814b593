"""What became of the jobs, read from the rows and from the results topic once everything is quiet."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from barnabas.contract.events import decode_event
from barnabas.contract.topics import RESULTS
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import JobState
from tests.bench.figures import Figure, once
from tests.chaos.scenarios.door import Tenant
from tests.support.eventually import eventually
from tests.support.topics import TopicReader

SETTLE_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Ended:
    """One row of `job_results`."""

    job: str
    state: JobState
    attempt: int
    losses: int
    event: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Books:
    """The ended jobs of some tenants."""

    rows: Sequence[Ended]

    def lost(self, accepted: Collection[str]) -> int:
        """Jobs that were accepted and have no end."""
        return len(set(accepted) - {row.job for row in self.rows})

    @property
    def ended_twice(self) -> int:
        """Jobs with more than one end."""
        return len(self.rows) - len({row.job for row in self.rows})

    @property
    def charged(self) -> int:
        """Attempts beyond the first, over all jobs."""
        return sum(row.attempt - 1 for row in self.rows)

    @property
    def unwell(self) -> int:
        """How many ended other than with success."""
        return sum(row.state is not JobState.SUCCEEDED for row in self.rows)

    def figures(self, scenario: str, accepted: Collection[str]) -> list[Figure]:
        """What no fault may touch: every job that was accepted ends, once, and as its handler said."""
        return [
            once(f"{scenario}.lost", "accepted jobs without an end", "jobs", self.lost(accepted)),
            once(f"{scenario}.twice", "jobs with two ends", "jobs", self.ended_twice),
            once(f"{scenario}.failed", "jobs that ended other than well", "jobs", self.unwell),
        ]


async def settled(database: Any, tenants: Sequence[Tenant], *, timeout: float = SETTLE_SECONDS) -> Books:
    """Wait until no job of these tenants is open, then read how they ended."""
    ids = [UUID(tenant.id) for tenant in tenants]

    async def still_open() -> int:
        count: int = await database.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = ANY ($1)", ids)
        return count

    await eventually(still_open, until=lambda count: count == 0, timeout=timeout)
    rows = await database.fetch(
        "SELECT job_id, state, attempt, losses, event_id, reason FROM job_results WHERE tenant_id = ANY ($1)", ids
    )
    return Books(
        [
            Ended(
                str(row["job_id"]),
                JobState(row["state"]),
                row["attempt"],
                row["losses"],
                str(row["event_id"]),
                row["reason"],
            )
            for row in rows
        ]
    )


async def lines(database: Any, tenants: Sequence[Tenant], kind: AttemptKind) -> dict[str, int]:
    """How many lines of one kind (attempts, losses, hand-backs) the timelines of these tenants' jobs have, by job."""
    rows = await database.fetch(
        "SELECT job_id, count(*) AS lines FROM job_attempts WHERE tenant_id = ANY ($1) AND kind = $2 GROUP BY job_id",
        [UUID(tenant.id) for tenant in tenants],
        int(kind),
    )
    return {str(row["job_id"]): row["lines"] for row in rows}


async def told_events(kafka: str, jobs: Collection[str], *, timeout: float = 120.0) -> dict[str, set[str]]:
    """The ids of the result events of these jobs; waits until each has one. A record that came twice has one id."""
    wanted, told = set(jobs), defaultdict[str, set[str]](set)
    read = 0
    async with TopicReader(kafka, RESULTS.name) as results:

        def missing() -> int:
            nonlocal read
            for record in results.records[read:]:
                event = decode_event(record.value)
                if str(event.job_id) in wanted:
                    told[str(event.job_id)].add(str(event.id))
            read = len(results.records)
            return len(wanted) - len(told)

        await eventually(missing, until=lambda count: count == 0, timeout=timeout)
    return dict(told)


async def deliveries(database: Any, tenants: Sequence[Tenant], books: Books) -> tuple[int, int]:
    """Deliveries that succeeded, once each ended job has one that is over; and how many took more than one attempt."""
    ids = [UUID(tenant.id) for tenant in tenants]

    async def ended() -> int:
        count: int = await database.fetchval(
            "SELECT count(*) FROM deliveries WHERE tenant_id = ANY ($1) AND state >= 4", ids
        )
        return count

    await eventually(ended, until=lambda count: count >= len(books.rows), timeout=180)
    row = await database.fetchrow(
        "SELECT count(*) FILTER (WHERE state = 4) AS delivered, count(*) FILTER (WHERE attempt > 1) AS again"
        " FROM deliveries WHERE tenant_id = ANY ($1)",
        ids,
    )
    return row["delivered"], row["again"]
