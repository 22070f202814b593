"""When jobs were accepted, started and ended, read from the rows that they left behind.

Acceptance is the millisecond in the job's id. The start is read inside the handler where the handler says it (`stamp`),
else it is the moment of the claim, which the database stamps after it has locked what the claim needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.bench.load_http import HttpOrder
from tests.bench.system import System, Tenant

_PAD_BYTES = 100
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Wait:
    """One job of a tenant whose jobs stamp their start; moments are seconds of Unix."""

    accepted: float
    claimed: float
    started: float

    @property
    def seconds(self) -> float:
        """From its acceptance to its handler's first line."""
        return self.started - self.accepted


def stamp_order(
    system: System, tenants: Sequence[Tenant], *, rate: float, seconds: float, priority: str = "medium"
) -> HttpOrder:
    """Single posts at even intervals, the tenants in turn."""
    return HttpOrder(
        url=system.stack.told["api_url"],
        keys=[tenant.key for tenant in tenants],
        job_type="stamp",
        pad_bytes=_PAD_BYTES,
        connections=_CONNECTIONS,
        seconds=seconds,
        jobs=int(rate * seconds),
        rate=rate,
        priorities=[priority],
    )


async def read_waits(system: System, tenants: Sequence[Tenant]) -> list[Wait]:
    """All of these tenants' ended jobs, which must be of type `stamp`."""
    rows = await system.database.fetch(
        "SELECT extract(epoch FROM uuid_extract_timestamp(job_id))::float8 AS accepted,"
        " extract(epoch FROM started_at)::float8 AS claimed, result"
        " FROM job_results WHERE tenant_id = ANY ($1::uuid[])",
        [tenant.id for tenant in tenants],
    )
    return [Wait(row["accepted"], row["claimed"], msgspec.json.decode(row["result"])["started"]) for row in rows]


async def read_span(system: System, tenants: Sequence[Tenant]) -> tuple[float, float]:
    """The first and the last start of these tenants' ended jobs."""
    row = await system.database.fetchrow(
        "SELECT extract(epoch FROM min(started_at))::float8 AS first,"
        " extract(epoch FROM max(started_at))::float8 AS last"
        " FROM job_results WHERE tenant_id = ANY ($1::uuid[])",
        [tenant.id for tenant in tenants],
    )
    return row["first"], row["last"]


async def count_starts(
    system: System, tenants: Sequence[Tenant], *, since: float, until: float | None = None, by: str = "tenant_id"
) -> dict[Any, tuple[int, float]]:
    """By tenant or by `priority`: how many ended jobs started in [since, until), and when the last of all started."""
    assert by in ("tenant_id", "priority")
    rows = await system.database.fetch(
        f"SELECT {by} AS what, extract(epoch FROM max(started_at))::float8 AS last,"
        " count(*) FILTER (WHERE started_at >= to_timestamp($2) AND started_at < to_timestamp($3)) AS n"
        f" FROM job_results WHERE tenant_id = ANY ($1::uuid[]) GROUP BY {by} ORDER BY {by}",
        [tenant.id for tenant in tenants],
        since,
        until if until is not None else 1e11,
    )
    return {row["what"]: (row["n"], row["last"]) for row in rows}
