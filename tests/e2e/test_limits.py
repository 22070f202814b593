"""Limits, order and fairness on real processes, while workers are killed: seeded, and judged by the rows they leave."""

import asyncio
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import pytest

from barnabas.client.models import TypeLimits
from barnabas.domain.backoff import RetryPolicy
from tests.support.eventually import eventually
from tests.support.stack import Stack, open_stack

SEED = int(os.environ.get("LIMITS_SEED", "20261122"))
NAPS = (180, 70)
"""Jobs of a tenant, and of the one whose starts are limited most."""
KILLS = 2
"""A third could make a dead letter of a job that each of them has hit."""
QUICK = RetryPolicy(base_seconds=0.1, factor=1.5, cap_seconds=1.0)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    """Two workers of few slots. Their lease is not short: a job that a starved machine loses too is a dead letter."""
    settings = {"BARNABAS_SLOTS": "8"}
    async with open_stack(workers=2, app="tests.support.recording_handlers:app", env=settings) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Scope:
    """A limit to be checked: of a tenant, or of one type of it."""

    tenant_id: UUID
    type: str | None = None
    running: int | None = None
    starts: int | None = None
    window: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run, by the database's clock."""

    tenant_id: UUID
    type: str
    started_at: datetime
    finished_at: datetime


async def test_no_limit_is_ever_exceeded_while_workers_are_killed(stack: Stack) -> None:
    choice = random.Random(SEED)
    limits = [
        ("limits-running", {"concurrency": 4}),
        ("limits-types", {"types": {"nap": TypeLimits(concurrency=2), "sleep": TypeLimits(concurrency=3)}}),
        ("limits-starts", {"starts_per_minute": 20}),
        ("limits-all", {"concurrency": 8, "starts_per_minute": 101, "types": {"nap": TypeLimits(concurrency=2)}}),
    ]
    tenants = [(UUID(tenant), key) for tenant, key in [await stack.tenant(name) for name, _ in limits]]
    ids = [tenant for tenant, _ in tenants]
    async with stack.admin() as admin:
        for tenant, (_, given) in zip(ids, limits, strict=True):
            await admin.set_limits(tenant, **given)  # type: ignore[arg-type]  # as many kinds as there are limits
    window = timedelta(seconds=3)
    async with stack.database() as database:
        # A minute would make this a test of minutes.
        await database.execute("UPDATE gates SET window_seconds = 3 WHERE tenant_id = ANY ($1)", ids)
        for tenant, key in tenants:
            await _submit_naps(stack, key, NAPS[tenant == ids[2]], choice)

        killed = await _kill_holders(stack, database, choice, ids, times=KILLS)
        await _until_ended(database, ids)
        attempts = await _attempts(database, ids)
        states = await database.fetch(
            "SELECT state, count(*) FROM job_results WHERE tenant_id = ANY ($1) GROUP BY state", ids
        )
        left = await database.fetch("SELECT kind, used FROM gates WHERE tenant_id = ANY ($1) AND used > 0", ids)
        waiting = await database.fetchval("SELECT count(*) FROM waiting WHERE tenant_id = ANY ($1)", ids)
        losses = await _losses(database, ids)
    scopes = [
        Scope(ids[0], running=4),
        Scope(ids[1], "nap", running=2),
        Scope(ids[1], "sleep", running=3),
        Scope(ids[2], starts=20, window=window),
        Scope(ids[3], starts=101, window=window),
        Scope(ids[3], "nap", running=2),
    ]
    seen = [_most(scope, attempts) for scope in scopes]
    print(
        f"seed {SEED}: {killed} kills, {losses} losses in {len(attempts)} attempts, most running and starting: {seen}"
    )

    assert losses > 0, "no kill has hit a running job"
    for scope, (running, starting) in zip(scopes, seen, strict=True):
        # The whole of what is allowed was used, and not one more.
        assert scope.running is None or running == scope.running
        assert scope.starts is None or starting <= scope.starts
    assert seen[3][1] == 20
    assert [tuple(row) for row in states] == [(5, 3 * NAPS[False] + NAPS[True])]
    assert left == []
    assert waiting == 0


async def test_jobs_with_an_ordering_key_start_in_order_through_retries_kills_and_a_redrive(
    stack: Stack, tmp_path: Path
) -> None:
    choice = random.Random(SEED + 1)
    tenant, key = await stack.tenant("limits-order")
    keys = [f"key{number}" for number in range(6)]
    async with stack.client(key) as client, stack.database() as database:
        # Twice each line has a job that takes its time, so that there is something to be killed.
        jobs = [
            _note(tmp_path, name, number, choice, seconds=1.5 if number in (2, 8) else None)
            for number in range(12)
            for name in keys
        ]
        # One of each line fails for good half way.
        for name in keys:
            jobs[6 * len(keys) + keys.index(name)]["payload"]["dies_without"] = str(tmp_path / "repaired")
        for part in _parts(jobs, 10):
            await client.submit_batch(part)
        await _kill_holders(stack, database, choice, [UUID(tenant)], times=KILLS)
        await _until_ended(database, [UUID(tenant)])

        # The dead ones go round again, while a later job has its turn and others wait behind it.
        late = [_note(tmp_path, name, number, choice, seconds=0.0) for number in (20, 21, 22) for name in keys]
        for job in late[: len(keys)]:
            job["payload"]["until"] = str(tmp_path / "redriven")
        await client.submit_batch(late)
        await eventually(lambda: all("20" in _numbers(tmp_path, name) for name in keys))
        (tmp_path / "repaired").touch()
        dead = [letter.id async for letter in client.dlq(kind="jobs")]
        await client.redrive(dead)
        (tmp_path / "redriven").touch()
        await _until_ended(database, [UUID(tenant)])
        losses = await _losses(database, [UUID(tenant)])
        left = await database.fetchval("SELECT count(*) FROM ordering WHERE tenant_id = $1", UUID(tenant))
        states = await database.fetch(
            "SELECT state, count(*) FROM job_results WHERE tenant_id = $1 GROUP BY state ORDER BY state", UUID(tenant)
        )

    assert losses > 0, "no kill has hit a running job"
    assert len(dead) == len(keys)
    assert [tuple(row) for row in states] == [(5, 15 * len(keys)), (6, len(keys))]
    assert left == 0
    for name in keys:
        # Attempts of one job are beside each other: the next has not started before its last one.
        order = [number for number, _ in itertools.groupby(_numbers(tmp_path, name))]
        assert order == [str(number) for number in (*range(12), 20, 6, 21, 22)], name


async def test_quiet_tenants_hardly_wait_while_another_floods_the_workers(stack: Stack) -> None:
    choice = random.Random(SEED + 2)
    flooding, flood_key = await stack.tenant("limits-flood")
    quiet = [await stack.tenant(f"limits-quiet-{number}") for number in range(5)]
    async with stack.client(flood_key) as client, stack.database() as database:
        # Twenty seconds of work for all slots: enough for whatever a busy machine takes to submit the few others.
        for part in _parts([{"type": "nap", "payload": {"seconds": 0.1}}] * 3_200, 800):
            await client.submit_batch(part)
        assert await _open_jobs(database, [UUID(flooding)]) > 1_600
        async with asyncio.TaskGroup() as group:
            for _, key in quiet:
                group.create_task(_trickle(stack, key, 8, random.Random(choice.random())))
        still_flooded = await _open_jobs(database, [UUID(flooding)])
        tenants = [UUID(tenant) for tenant, _ in [(flooding, flood_key), *quiet]]
        await _until_ended(database, tenants)
        waits = {tenant: await _waits(database, tenant) for tenant in tenants}
    flood_wait = median(waits[tenants[0]])
    quiet_waits = sorted(wait for tenant in tenants[1:] for wait in waits[tenant])
    print(f"flood waits {flood_wait:.2f} s, quiet ones {median(quiet_waits):.3f} s, at most {quiet_waits[-1]:.3f} s")

    assert still_flooded > 0, "the flood was over before the quiet ones had spoken"
    assert len(quiet_waits) == 40
    assert median(quiet_waits) < flood_wait / 10
    assert quiet_waits[-1] < flood_wait / 2


# Submitting and killing ---------------------------------------------------------------------------------------------


async def _submit_naps(stack: Stack, key: str, count: int, choice: random.Random) -> None:
    jobs = [
        {
            "type": choice.choice(["nap", "sleep"]),
            "payload": {"seconds": round(choice.uniform(0.005, 0.2), 3)},
            "priority": choice.choice(["low", "medium", "high", "critical"]),
        }
        for _ in range(count)
    ]
    async with stack.client(key) as client:
        verdicts = await client.submit_batch(jobs)
    assert all(verdict.id is not None for verdict in verdicts)


def _note(
    directory: Path, name: str, number: int, choice: random.Random, *, seconds: float | None = None
) -> dict[str, Any]:
    return {
        "type": "note",
        "payload": {
            "file": str(directory / name),
            "line": str(number),
            "seconds": round(choice.uniform(0.0, 0.15), 3) if seconds is None else seconds,
            "fails": choice.choice([0, 0, 0, 1]),
        },
        "ordering_key": name,
        "retry": QUICK,
    }


async def _trickle(stack: Stack, key: str, count: int, choice: random.Random) -> None:
    async with stack.client(key) as client:
        for _ in range(count):
            await client.submit("nap", {"seconds": 0.01})
            await asyncio.sleep(choice.uniform(0.05, 0.25))


async def _kill_holders(
    stack: Stack, database: Any, choice: random.Random, tenants: Sequence[UUID], *, times: int
) -> int:
    """kill -9 a worker while it runs jobs of these tenants, so often or until all of them have ended."""
    for killed in range(times):
        await asyncio.sleep(choice.uniform(0.1, 0.5))

        async def is_over() -> str | None:
            if not await _open_jobs(database, tenants):
                return "ended"
            # Another one each time: all of a tenant's jobs may be with one worker.
            victim = choice.choice(["worker", "worker-2"])
            # Stopped first, so that what it runs now it runs when it dies. A job that still has time to go cannot have
            # ended: of any other the end may be on its way to Postgres, and be committed after the death.
            try:
                pid = stack.signal(victim, signal.SIGSTOP)
            except (ProcessLookupError, KeyError):
                return None  # it is on its way up
            held = await database.fetchval(
                "SELECT count(*) FROM jobs JOIN workers USING (worker_id) JOIN job_payloads USING (tenant_id, job_id)"
                " WHERE pid = $1 AND state = 3 AND tenant_id = ANY ($2) AND jobs.started_at + make_interval("
                "secs => (convert_from(payload, 'UTF8')::json ->> 'seconds')::double precision) > clock_timestamp()",
                pid,
                tenants,
            )
            if not held:
                os.kill(pid, signal.SIGCONT)
                return None
            await stack.kill(victim)
            return "killed"

        if await eventually(is_over, timeout=240) == "ended":
            return killed
    return times


# Reading what became of it ------------------------------------------------------------------------------------------


async def _open_jobs(database: Any, tenants: Sequence[UUID]) -> int:
    count: int = await database.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = ANY ($1)", tenants)
    return count


async def _until_ended(database: Any, tenants: Sequence[UUID]) -> None:
    await eventually(lambda: _open_jobs(database, tenants), until=lambda count: count == 0, timeout=300)


async def _losses(database: Any, tenants: Sequence[UUID]) -> int:
    count: int = await database.fetchval(
        "SELECT count(*) FROM job_attempts WHERE tenant_id = ANY ($1) AND kind = 2", tenants
    )
    return count


async def _attempts(database: Any, tenants: Sequence[UUID]) -> list[Attempt]:
    """All claims: a place is held from `started_at` to some time after `finished_at`, when its end is committed."""
    rows = await database.fetch(
        "SELECT run.tenant_id, type.name, run.started_at, run.finished_at FROM ("
        " SELECT tenant_id, type_id, started_at, finished_at FROM job_results WHERE tenant_id = ANY ($1)"
        " UNION ALL SELECT run.tenant_id, job.type_id, run.started_at, run.finished_at FROM job_attempts AS run"
        " JOIN job_payloads AS job USING (tenant_id, job_id) WHERE run.tenant_id = ANY ($1)"
        ") AS run JOIN job_types AS type USING (type_id)",
        tenants,
    )
    return [Attempt(*row) for row in rows]


def _most(scope: Scope, attempts: Sequence[Attempt]) -> tuple[int, int]:
    """The most that ran at one moment, and the most that started within one window."""
    own = [one for one in attempts if one.tenant_id == scope.tenant_id and scope.type in (None, one.type)]
    # An end before a start at the same time: the place is free then.
    moments = sorted([(one.started_at, 1) for one in own] + [(one.finished_at, -1) for one in own])
    running = max(itertools.accumulate(change for _, change in moments))
    starts = sorted(one.started_at for one in own)
    starting = max(sum(begin <= start < begin + scope.window for start in starts) for begin in starts)
    return running, starting


async def _waits(database: Any, tenant: UUID) -> list[float]:
    rows = await database.fetch(
        "SELECT extract(epoch FROM started_at - uuid_extract_timestamp(job_id))::double precision FROM job_results"
        " WHERE tenant_id = $1",
        tenant,
    )
    return [row[0] for row in rows]


def _numbers(directory: Path, name: str) -> list[str]:
    path = directory / name
    return path.read_text().splitlines() if path.exists() else []


def _parts(jobs: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]
