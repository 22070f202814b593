"""The reaper: takes back what dead workers held, and attempts that are past their own deadline.

The database's clock judges, and nobody is judged for a time in which Postgres, or the way to it, was away: then no
worker could renew, and taking their jobs would run all of them twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog

from barnabas.contract.jobs import JobError, encode
from barnabas.domain.attempts import AttemptKind, Finish, Lost, decide
from barnabas.domain.backoff import RetryPolicy
from barnabas.domain.jobs import Hook, JobState
from barnabas.domain.leases import is_expired
from barnabas.domain.recovery import OVERDUE_GRACE_SECONDS
from barnabas.postgres.database import Session
from barnabas.postgres.deliveries import release_deliveries
from barnabas.postgres.reaping import (
    HeldJob,
    bury_worker,
    find_held_jobs,
    list_expired_workers,
    list_overdue_jobs,
)
from barnabas.postgres.turns import Finishing, Releasing, Turn, Turned, take_turn
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import answer
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import tell_committed

log = structlog.get_logger(__name__)

_OVERDUE_REST_SECONDS = 5.0
_OVERDUE_BATCH = 500

# What a loss leads to doesn't depend on how a handler retries its errors.
_NO_POLICY = RetryPolicy()


@dataclass(slots=True)
class TakenBack:
    """What one transaction took back."""

    requeued: int = 0
    ended: int = 0
    dead: list[HeldJob] = field(default_factory=list)
    deliveries: int = 0
    outbox_ids: list[int | None] = field(default_factory=list)

    def add(self, turned: Turned, held: Sequence[HeldJob], ending: Sequence[Finishing]) -> None:
        """One turn's part of it."""
        self.requeued += len(turned.released)
        self.ended += len(turned.closed)
        self.outbox_ids += [turned.ready_outbox_id, turned.ended_outbox_id, *turned.told]
        dead = {job.job_id for job in ending if job.reason is not None} & turned.closed
        self.dead += [job for job in held if job.job_id in dead]


async def reap_leases(resources: Resources, stop: Stop) -> None:
    """Reap whenever the question has seen a lease that is over."""

    async def step() -> float | None:
        await reap_once(resources)
        return None

    await answer(resources.bells.leases, step, stop)


async def reap_overdue_attempts(resources: Resources, stop: Stop) -> None:
    """Look for overdue attempts while batches are held for longer than the grace."""

    async def step() -> float | None:
        await reap_overdue_once(resources)
        # A bell rung meanwhile is heard after the rest: long attempts are no reason to look every second.
        await stop.wait(_OVERDUE_REST_SECONDS)
        return None

    await answer(resources.bells.overdue, step, stop)


async def reap_once(resources: Resources) -> int:
    """Take back all that expired workers held; returns how many workers that were."""
    settings = resources.settings
    async with resources.database.session() as session:
        expired = await list_expired_workers(session)
    reaped = 0
    for worker in expired:
        reached = timedelta(seconds=resources.leadership.reached_seconds)
        if not is_expired(
            worker.lease_until,
            now=worker.now,
            server_started_at=worker.server_started_at,
            reaper_connected_at=worker.now - reached,
            lease_seconds=settings.lease_seconds,
        ):
            continue
        taken = await resources.database.run(partial(_bury, resources, worker.worker_id))
        if taken is None:
            continue
        reach(CrashPoint.REAPER_AFTER_COMMIT)
        reaped += 1
        log.warning(
            "lease_expired",
            worker_id=str(worker.worker_id),
            holder=worker.service,
            requeued=taken.requeued,
            ended=taken.ended,
            deliveries=taken.deliveries,
        )
        await _after(resources, taken)
    return reaped


async def reap_overdue_once(resources: Resources) -> int:
    """Take back attempts past their deadline and the grace, although their worker lives; returns how many."""
    async with resources.database.session() as session:
        overdue = await list_overdue_jobs(session, grace_seconds=OVERDUE_GRACE_SECONDS, limit=_OVERDUE_BATCH)
    count = 0
    for worker_id, keys in overdue.items():
        taken = await take_back(resources, worker_id, keys)
        count += taken.requeued + taken.ended
        log.warning("attempts_overdue", worker_id=str(worker_id), requeued=taken.requeued, ended=taken.ended)
    return count


async def take_back(resources: Resources, worker_id: UUID, keys: Sequence[tuple[UUID, UUID]]) -> TakenBack:
    """Take these jobs (tenant_id, job_id) from a worker as lost, as far as it still holds them, and tell of them."""

    async def step(session: Session) -> TakenBack:
        taken = TakenBack()
        await _take_jobs(resources, session, worker_id, keys, taken)
        return taken

    taken = await resources.database.run(step)
    await _after(resources, taken)
    return taken


async def _bury(resources: Resources, worker_id: UUID, session: Session) -> TakenBack | None:
    left = await bury_worker(session, worker_id)
    if left is None:
        return None
    taken = TakenBack()
    if left.jobs:
        await _take_jobs(resources, session, worker_id, left.jobs, taken)
    if left.deliveries:
        # Which fence the dead one held is not known; it can't hold a second.
        released, outbox_id = await release_deliveries(session, worker_id, [(key, None) for key in left.deliveries])
        taken.deliveries = len(released)
        taken.outbox_ids.append(outbox_id)
    reach(CrashPoint.REAPER_BEFORE_COMMIT)
    return taken


async def _take_jobs(
    resources: Resources, session: Session, worker_id: UUID, keys: Sequence[tuple[UUID, UUID]], taken: TakenBack
) -> None:
    """Each job that the worker still holds is queued again with a loss, or ends."""
    # Gates and lines come before jobs in the order of locks.
    await session.fetch("lock_gates", sorted({key[0] for key in keys}))
    await session.execute("lock_order", [key[0] for key in keys], [key[1] for key in keys])
    held = await find_held_jobs(session, worker_id, keys)
    if not held:
        return
    ending: list[Finishing] = []
    going: list[Releasing] = []
    for job in held:
        decision = decide(
            Lost(),
            attempt=job.attempt,
            max_attempts=job.max_attempts or job.attempt,
            losses=job.losses,
            policy=_NO_POLICY,
            jitter=0.0,
            cancel_requested=bool(job.hooks & Hook.CANCEL_REQUESTED),
        )
        if isinstance(decision, Finish):
            ending.append(_finishing(resources, job, decision))
        else:
            going.append(Releasing(job.tenant_id, job.job_id, job.fence, AttemptKind.LOSS))
    hold = resources.settings.ordered_dead_letters == "block"
    ordered = any(job.hooks & Hook.ORDERED for job in held)
    turn = Turn(worker_id=worker_id, finishing=ending, releasing=going, ordered=ordered, hold=hold)
    turned = await take_turn(session, turn)
    taken.add(turned, held, ending)
    if turned.cancel_wanted:
        # Its cancel was asked for a moment ago: so it ends instead.
        by_id = {job.job_id: job for job in held}
        cancelled = [
            _finishing(resources, by_id[job_id], Finish(state=JobState.CANCELLED)) for job_id in turned.cancel_wanted
        ]
        turned = await take_turn(session, Turn(worker_id=worker_id, finishing=cancelled, ordered=ordered))
        taken.add(turned, held, cancelled)


def _finishing(resources: Resources, job: HeldJob, decision: Finish) -> Finishing:
    error = decision.error
    return Finishing(
        job.tenant_id,
        job.job_id,
        job.fence,
        decision.state,
        resources.ids.mint(),
        error=None if error is None else encode(JobError(error.code, error.message, error.retryable)),
        reason=decision.dead_letter_reason,
    )


async def _after(resources: Resources, taken: TakenBack) -> None:
    """Count what was taken, show dead letters, and tell Kafka."""
    jobs = taken.requeued + taken.ended
    metrics.losses.inc(jobs)
    metrics.leases_expired.labels("job").inc(jobs)
    metrics.leases_expired.labels("delivery").inc(taken.deliveries)
    for job in taken.dead:
        log.warning("dead_letter", tenant_id=str(job.tenant_id), job_id=str(job.job_id), reason="worker_lost")
    await tell_committed(resources, taken.outbox_ids)
