"""Limits under stress: many starts over four workers, some of which are killed, and every start looked at afterwards.

Four kinds of tenants: some with places, some with few starts a window (their log is exact), some with many (theirs is
in parts of the window), some with places and starts. All have work in line all the time, so what isn't used is lost.
"""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.exact_count import Run, count_over_places, count_over_window, places_used, starts_used
from tests.bench.fairness_flood import flood_order
from tests.bench.fairness_plan import FairnessPlan
from tests.bench.figures import Figure, once
from tests.bench.system import System, Tenant, superuser
from tests.bench.tenants import make_gates, make_tenants
from tests.support.eventually import eventually

WORKERS = 4
_TENANTS = 4
_HOLD_SECONDS = 0.1
# What four workers start in a second with these limits, on two cores; it only sets how the starts are divided.
_STARTS_PER_SECOND = 1_500
_SETTLE_MICROSECONDS = 1_000_000
# A killed worker's jobs run again alone, one process each; and limits on starts make the last ones wait.
_SPARE_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    job_type: str
    allowed: int | None = None
    starts_allowed: int | None = None
    batch: int = 20


_KINDS = (
    # Accepted faster than they start, with room to spare.
    _Kind("places", "hold", allowed=48, batch=100),
    _Kind("exact", "echo", starts_allowed=50),
    _Kind("parts", "echo", starts_allowed=500),
    _Kind("both", "hold", allowed=8, starts_allowed=90),
)


async def measure(system: System, plan: FairnessPlan) -> list[Figure]:
    """Violations, which must be none, and how much of what was allowed was used."""
    seconds = plan.starts / _STARTS_PER_SECOND
    tenants: dict[str, list[Tenant]] = {}
    for kind in _KINDS:
        tenants[kind.name] = await make_tenants(system, kind.name, _TENANTS)
        gate = {"kind": 1, "allowed": kind.allowed, "starts_allowed": kind.starts_allowed}
        await make_gates(system, tenants[kind.name], [gate | {"window_seconds": plan.window_seconds}])
    jobs = _divide(plan, seconds)
    orders = [
        flood_order(
            system,
            tenants[kind.name],
            jobs[kind.name],
            job_type=kind.job_type,
            hold_seconds=_HOLD_SECONDS,
            batch=kind.batch,
            seconds=seconds + _SPARE_SECONDS,
        )
        for kind in _KINDS
    ]
    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(system.run_http(order)) for order in orders]
        killing = group.create_task(_kill_workers(system, plan.kills, every=seconds / (plan.kills + 1)))
    accepted = sum(load.result().accepted for load in loads)
    everyone = [tenant for several in tenants.values() for tenant in several]
    failed = await _all_ended(system, everyone, accepted, seconds=seconds + _SPARE_SECONDS)
    seen = await _look(system, tenants, window=round(plan.window_seconds * 1e6))
    # The scheduler looks once a second: in a short window that is a share worth naming, but not the one to be judged.
    used = "used" if plan.window_seconds >= 60 else "used_of_short_window"
    starts_used_of = f"starts used of those allowed in {plan.window_seconds:g} s"
    about = f"{WORKERS} workers, {killing.result()} kills"
    return [
        once("exact.starts", f"starts looked at, {about}", "starts", float(seen.starts), more_is_better=True),
        once("exact.lost", "of those, runs that died with their worker", "starts", float(seen.lost)),
        once("exact.failed", "jobs that ended otherwise than succeeded", "jobs", float(failed)),
        once("exact.over_places", "starts above a tenant's places", "starts", float(seen.over_places)),
        once(
            "exact.over_window", f"starts above a limit in {plan.window_seconds:g} s", "starts", float(seen.over_window)
        ),
        once("exact.violations", "violations of any limit", "starts", float(seen.over_places + seen.over_window)),
        *[
            once(f"exact.{name}", what, "%", 100 * statistics.mean(seen.used[kind]), more_is_better=True)
            for name, kind, what in (
                ("used.places", "places", "places taken while work was in line"),
                (f"{used}.exact", "exact", f"{starts_used_of}, log of single starts"),
                (f"{used}.parts", "parts", f"{starts_used_of}, log of the window's parts"),
            )
        ],
    ]


async def _all_ended(system: System, tenants: Sequence[Tenant], accepted: int, *, seconds: float) -> int:
    """Wait until every job has ended, each once; how many didn't succeed.

    By rows alone: a killed worker has told of ends that it could not take off the outbox, and they are told again.
    """
    ids = [tenant.id for tenant in tenants]
    await eventually(
        lambda: system.database.fetchval("SELECT EXISTS (SELECT FROM jobs WHERE tenant_id = ANY ($1::uuid[]))", ids),
        until=lambda is_open: not is_open,
        timeout=seconds,
    )
    async with superuser(system.stack) as connection:
        row = await connection.fetchrow(
            "SELECT count(*) AS ends, count(DISTINCT job_id) AS jobs, count(*) FILTER (WHERE state <> 5) AS failed"
            " FROM job_results WHERE tenant_id = ANY ($1::uuid[])",
            ids,
        )
    ends, jobs, failed = row
    assert ends == jobs == accepted, f"{accepted} jobs accepted, {jobs} ended, in {ends} rows"
    return int(failed)


@dataclass(slots=True)
class _Seen:
    starts: int
    lost: int
    over_places: int
    over_window: int
    used: dict[str, list[float]]


async def _look(system: System, tenants: dict[str, list[Tenant]], *, window: int) -> _Seen:
    seen = _Seen(0, 0, 0, 0, {kind.name: [] for kind in _KINDS})
    async with superuser(system.stack) as connection:
        for kind in _KINDS:
            for tenant in tenants[kind.name]:
                runs, lost = await _runs(connection, tenant)
                seen.starts += len(runs)
                seen.lost += lost
                began = [started for started, _ in runs]
                if kind.allowed is not None:
                    seen.over_places += count_over_places(runs, kind.allowed)
                if kind.starts_allowed is not None:
                    seen.over_window += count_over_window(began, kind.starts_allowed, window=window)
                    seen.used[kind.name].append(starts_used(began, kind.starts_allowed, window=window))
                elif kind.allowed is not None:
                    seen.used[kind.name].append(places_used(runs, kind.allowed, settle=_SETTLE_MICROSECONDS))
    return seen


def _divide(plan: FairnessPlan, seconds: float) -> dict[str, int]:
    """How many jobs of each kind: what its limits let start in that time, the rest for those with places only."""
    windows = 1 + int(seconds / plan.window_seconds)
    jobs = {kind.name: kind.starts_allowed * windows * _TENANTS for kind in _KINDS if kind.starts_allowed is not None}
    # Tests and first tries are too small for all of it.
    scale = min(1.0, 0.5 * plan.starts / sum(jobs.values()))
    jobs = {name: int(count * scale) for name, count in jobs.items()}
    jobs["places"] = plan.starts - sum(jobs.values())
    # The same for each tenant of a kind, in whole batches.
    portions = {kind.name: kind.batch * _TENANTS for kind in _KINDS}
    return {name: max(1, -(-count // portions[name])) * portions[name] for name, count in jobs.items()}


async def _kill_workers(system: System, kills: int, *, every: float) -> int:
    """kill -9 of whichever worker holds the most jobs; it is started anew before the next one's turn."""
    for _ in range(kills):
        await asyncio.sleep(every)
        busiest = await system.database.fetchval(
            "SELECT worker.pid FROM jobs AS job JOIN workers AS worker USING (worker_id) WHERE job.state = 3"
            " GROUP BY worker.worker_id ORDER BY count(*) DESC LIMIT 1"
        )
        names = {pid: name for name, pid in system.stack.told["pids"].items() if name.startswith("worker")}
        await system.stack.kill(names.get(busiest, "worker"))
    return kills


async def _runs(connection: Any, tenant: Tenant) -> tuple[Sequence[Run], int]:
    """Every run of the tenant's jobs that held a place, and how many of them were lost."""
    rows = await connection.fetch(
        "SELECT (extract(epoch FROM started_at) * 1000000)::bigint AS started,"
        " (extract(epoch FROM finished_at) * 1000000)::bigint AS ended, lost FROM ("
        " SELECT started_at, finished_at, false AS lost FROM job_results WHERE tenant_id = $1::uuid"
        " UNION ALL SELECT started_at, finished_at, kind = 2 FROM job_attempts WHERE tenant_id = $1::uuid) AS every"
        " WHERE started_at IS NOT NULL",
        tenant.id,
    )
    return [(row["started"], row["ended"]) for row in rows], sum(row["lost"] for row in rows)
