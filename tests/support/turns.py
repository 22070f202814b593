"""Single moves of jobs, each a turn of its own: what a worker does in one statement, taken apart for tests."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from barnabas.postgres.database import Session
from barnabas.postgres.turns import Claim, Claims, Finishing, Releasing, Turn, Turned, WokenJob, take_turn


async def claim_jobs(
    session: Session, worker_id: UUID, batch_id: UUID, keys: Sequence[tuple[UUID, UUID]], types: Mapping[int, int]
) -> Claims:
    """Claim these (tenant_id, job_id)."""
    claim = Claim(batch_id=batch_id, keys=keys, types=types)
    claims = (await take_turn(session, Turn(worker_id=worker_id, claim=claim))).claims
    assert claims is not None
    return claims


async def finish_jobs(
    session: Session, worker_id: UUID, jobs: Sequence[Finishing], *, batches: Sequence[UUID] = ()
) -> Turned:
    """End held jobs."""
    return await take_turn(session, Turn(worker_id=worker_id, finishing=jobs, done=batches))


async def release_jobs(
    session: Session, worker_id: UUID, jobs: Sequence[Releasing], *, batches: Sequence[UUID] = ()
) -> Turned:
    """Let go of held jobs that did not end."""
    return await take_turn(session, Turn(worker_id=worker_id, releasing=jobs, done=batches))


async def wake_waiting(session: Session, tenants: Sequence[UUID]) -> list[WokenJob]:
    """Call whom the gates of these tenants have room for."""
    turned = await take_turn(session, Turn(worker_id=UUID(int=0), wake=tenants))
    return [job for jobs in turned.told.values() for job in jobs]
