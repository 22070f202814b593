"""Sweeps: call parked jobs whose gate has room, and jobs without a handler whose type somebody has announced since.

Whoever frees a place calls the next job in the same transaction; the sweep is for windows of start limits that open
with the time, for limits that were raised, and for calls that got lost.
"""

from collections.abc import Sequence
from uuid import UUID

import structlog

from barnabas.contract.telling import OutboxKind
from barnabas.postgres.database import Session
from barnabas.postgres.outbox import insert_outbox
from barnabas.postgres.turns import Turn, Turned, take_turn
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import answer
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import tell_committed

log = structlog.get_logger(__name__)

_GATES = 100
# Many windows at once open all the time: then this is how often.
_PACE_SECONDS = 0.05
# No job is held or claimed here.
_NOBODY = UUID(int=0)
# A fleet that comes up with a new handler meets its backlog at this rate, once a second.
_HANDLED = 500


async def sweep_gates(resources: Resources, stop: Stop) -> None:
    """Sweep whenever the question has seen a gate with room and waiters, and at the moment when a window opens."""

    async def step() -> float | None:
        await sweep_gates_once(resources)
        opens_in: float | None = await resources.database.fetchval("read_next_opening")
        # Not before the moment itself: the statement would find the window shut.
        return None if opens_in is None else max(_PACE_SECONDS, opens_in + 0.001)

    await answer(resources.bells.gates, step, stop)


async def sweep_types(resources: Resources, stop: Stop) -> None:
    """Sweep whenever the question has seen a waiting type that is handled now."""

    async def step() -> float | None:
        await sweep_types_once(resources)
        return None

    await answer(resources.bells.types, step, stop)


async def sweep_gates_once(resources: Resources) -> int:
    """Call as many parked jobs as their gates have room for; returns how many."""
    tenants = [row["tenant_id"] for row in await resources.database.fetch("find_open_gates", _GATES)]
    if not tenants:
        return 0

    async def step(session: Session) -> Turned:
        return await take_turn(session, Turn(worker_id=_NOBODY, wake=tenants))

    told = (await resources.database.run(step)).told
    called = sum(len(jobs) for jobs in told.values())
    if called:
        log.info("parked_jobs_called", jobs=called, tenants=len(tenants))
    await tell_committed(resources, list(told))
    return called


async def sweep_types_once(resources: Resources) -> int:
    """Call jobs whose type a live worker has announced; returns how many."""
    called, outbox_id = await resources.database.run(_wake_handled)
    if called:
        log.info("unhandled_jobs_called", jobs=called)
    await tell_committed(resources, [outbox_id])
    return called


async def _wake_handled(session: Session) -> tuple[int, int | None]:
    return await _tell(session, [tuple(row) for row in await session.fetch("wake_handled_types", _HANDLED)])


async def _tell(session: Session, woken: Sequence[tuple[UUID, UUID, int]]) -> tuple[int, int | None]:
    if not woken:
        return 0, None
    tenants, jobs, fences = zip(*woken, strict=True)
    return len(woken), await insert_outbox(session, OutboxKind.READY_JOBS, tenants, jobs, fences)
