"""A tenant's limits, set while jobs run: its gates and its weight.

A gate made for a tenant that runs jobs already must count them, once each. Claims that began before the gate was
visible don't see it; so the gates are made first, and what runs is counted only when every older transaction is over.
"""

import asyncio
from collections.abc import Mapping
from uuid import UUID

from barnabas.domain.limits import Limits, LimitsUse, TypeLimits, TypeUse
from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.database import Database, Session
from barnabas.postgres.dictionaries import job_types

_HORIZON_POLL_SECONDS = 0.02
# Longer than any statement of ours may take.
_HORIZON_LIMIT_SECONDS = 60.0

_TENANT, _TYPE, _SUBMITS = 1, 2, 3
"""Kinds of gates: all jobs of a tenant, its jobs of one type, its submissions."""


async def set_limits(database: Database, tenant_id: UUID, limits: Limits) -> None:
    """Replace all limits of a tenant; they hold over all workers.

    Jobs that run already go on, and are counted when this returns: from then on no job starts above a limit of running
    jobs. Limits of a minute count what starts, or is submitted, from now on. Raises `DatabaseUnavailableError` if an
    older transaction doesn't end; calling again then completes the change.
    """
    type_ids = await job_types(database).ids(limits.types)
    gates = _gates(limits, type_ids)
    transaction_id = await database.run(lambda session: _set(session, tenant_id, gates, limits.weight))
    try:
        async with asyncio.timeout(_HORIZON_LIMIT_SECONDS):
            while not await database.fetchval("is_transaction_past", transaction_id):
                await asyncio.sleep(_HORIZON_POLL_SECONDS)
    except TimeoutError as error:
        raise DatabaseUnavailableError("an older transaction is still open") from error
    await database.run(lambda session: _count_running(session, tenant_id))


async def read_limits(database: Database, tenant_id: UUID) -> tuple[Limits, LimitsUse] | None:
    """The limits and how much of them is used; None for an unknown tenant."""
    rows = await database.fetch("read_gates", tenant_id)
    if not rows:
        return None
    limits, use = TypeLimits(), TypeUse()
    submits = submits_used = None
    types: dict[str, TypeLimits] = {}
    types_use: dict[str, TypeUse] = {}
    for row in rows:
        starts = None if row["starts_allowed"] is None else row["starts"]
        if row["kind"] == _SUBMITS:
            submits, submits_used = row["starts_allowed"], starts
            continue
        gate_limits = TypeLimits(concurrency=row["allowed"], starts_per_minute=row["starts_allowed"])
        gate_use = TypeUse(running=None if row["allowed"] is None else row["used"], starts=starts)
        if row["kind"] == _TENANT:
            limits, use = gate_limits, gate_use
        elif not gate_limits.is_none:
            types[row["type"]], types_use[row["type"]] = gate_limits, gate_use
    return (
        Limits(
            concurrency=limits.concurrency,
            starts_per_minute=limits.starts_per_minute,
            submits_per_minute=submits,
            weight=rows[0]["weight"],
            types=types,
        ),
        LimitsUse(running=use.running, starts=use.starts, submits=submits_used, types=types_use),
    )


_Gate = tuple[int, int, int | None, int | None]
"""Kind, type, how many at once, how many a minute."""


def _gates(limits: Limits, type_ids: Mapping[str, int]) -> list[_Gate]:
    """Those that limit something, in key order."""
    gates: list[_Gate] = [
        (_TENANT, 0, limits.concurrency, limits.starts_per_minute),
        (_SUBMITS, 0, None, limits.submits_per_minute),
        *((_TYPE, type_ids[name], each.concurrency, each.starts_per_minute) for name, each in limits.types.items()),
    ]
    return sorted((gate for gate in gates if gate[2:] != (None, None)), key=lambda gate: gate[:2])


async def _set(session: Session, tenant_id: UUID, gates: list[_Gate], weight: int) -> str:
    await session.fetch("lock_tenant_gates", tenant_id)
    columns = [[gate[column] for gate in gates] for column in range(4)]
    transaction_id: str = await session.fetchval("set_gates", tenant_id, *columns)
    if await session.fetchval("set_weight", tenant_id, weight):
        # Workers keep the weights in memory, and hear of it with their next renewal.
        await session.execute("raise_revision", "sharing")
    return transaction_id


async def _count_running(session: Session, tenant_id: UUID) -> None:
    # Whom a raised limit lets pass is woken by the retry-scheduler's sweep, within a second.
    await session.fetch("lock_tenant_gates", tenant_id)
    await session.execute("count_running_jobs", tenant_id)
