"""A turn: write what ended, claim what comes next, in one transaction, then tell Kafka and start the new attempts.

Every record handed in gets a durable verdict; offsets may be committed up to the lowest record still without one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import structlog

from barnabas.contract.events import JobEvent
from barnabas.contract.jobs import JobError, encode
from barnabas.contract.telling import OutboxKind, event_records, job_record, retry_record
from barnabas.domain.attempts import AttemptKind, Finish, Postpone, Requeue, Retry, decide, kind_of
from barnabas.domain.backoff import RetryPolicy
from barnabas.domain.jobs import Hook, JobState
from barnabas.postgres.database import Session
from barnabas.postgres.turns import (
    Claims,
    Finishes,
    Finishing,
    Releasing,
    Turn,
    Verdict,
    WokenJob,
    claim_jobs,
    finish_jobs,
    release_jobs,
    turn_jobs,
    wake_waiting,
)
from barnabas.runtime import metrics
from barnabas_worker.holdings import Ended, Held
from barnabas_worker.look_ahead import Wanted
from barnabas_worker.resources import Resources

log = structlog.get_logger(__name__)

_EVENT_TYPES = {
    JobState.SUCCEEDED: "job.succeeded",
    JobState.FAILED: "job.failed",
    JobState.CANCELLED: "job.cancelled",
}


Decided = Finishing | Releasing


@dataclass(slots=True)
class Written:
    """What one transaction did, to be acted on after its commit."""

    worker_id: UUID
    """Whoever claims; the endings name the holder of each job."""
    batch_id: UUID
    claims: Claims | None = None
    tell: list[tuple[int, list[tuple[object, ...]]]] = field(default_factory=list)
    """Outbox rows and the records that they stand for."""
    superseded: int = 0
    acknowledged: list[int] = field(default_factory=list)
    """Outbox rows that this turn deletes."""
    emptied: list[UUID] = field(default_factory=list)
    """Lease batches that this turn deletes."""


async def take_turn(
    resources: Resources,
    session: Session,
    finished: Sequence[Ended],
    wanted: Sequence[Wanted],
    *,
    worker_id: UUID,
) -> Written:
    """Write the endings and the claims; nothing of this process' memory changes but what a retry may repeat.

    Raises `LeaseOverError`, and `DatabaseUnavailableError`: what was written is unknown then, and the same endings are
    to be handed in again.
    """
    written = Written(worker_id, resources.ids.mint(), acknowledged=resources.teller.take_acknowledged())
    written.emptied = resources.holdings.take_empty() if finished else []
    now = resources.clock.now()
    decided = [_decided(one, now=now, jitter=resources.jitter()) for one in finished]
    limited = {one.held.job.tenant_id for one in finished if one.held.job.hooks & Hook.LIMITED}
    plain = not limited and all(
        type(one) is Finishing and ended.held.worker_id == worker_id
        for ended, one in zip(finished, decided, strict=True)
    )
    try:
        if plain:
            await _write_plain(resources, session, finished, decided, wanted, written)
        else:
            # The lock of a gate has to outlive the statement that took it.
            async with session.transaction():
                if written.acknowledged:
                    await session.execute("delete_outbox", written.acknowledged)
                await _write(resources, session, list(zip(finished, decided, strict=True)), wanted, limited, written)
    except BaseException:
        resources.teller.untaken(written.acknowledged)
        resources.holdings.untaken(written.emptied)
        # If the claim was committed all the same, the recall finds its batch and hands the jobs back.
        resources.holdings.unexpect(written.batch_id)
        raise
    resources.holdings.deleted(written.emptied)
    return written


async def tidy(resources: Resources, session: Session) -> None:
    """When idle: delete what the next turn would have deleted in passing."""
    acknowledged, emptied = resources.teller.take_acknowledged(), resources.holdings.take_empty()
    try:
        if acknowledged:
            await session.execute("delete_outbox", acknowledged)
        if emptied:
            await session.execute("delete_lease_batches", emptied)
    except BaseException:
        resources.teller.untaken(acknowledged)
        resources.holdings.untaken(emptied)
        raise
    resources.holdings.deleted(emptied)


async def _write_plain(
    resources: Resources,
    session: Session,
    finished: Sequence[Ended],
    decided: Sequence[Decided],
    wanted: Sequence[Wanted],
    written: Written,
) -> None:
    """The common turn: jobs that hold no gate's place end, others are claimed."""
    if wanted:
        resources.holdings.expect(written.batch_id)
    finishing = [one for one in decided if isinstance(one, Finishing)]
    turn = Turn(
        worker_id=written.worker_id,
        finishing=finishing,
        batches=written.emptied,
        told=written.acknowledged,
        batch_id=written.batch_id,
        keys=[(one.tenant_id, one.job_id) for one in wanted],
        types=resources.timeouts_ms,
    )
    finishes, claims = await turn_jobs(session, turn)
    if wanted:
        written.claims = claims
    _tell_ended(finishes, list(zip(finished, finishing, strict=True)), written)
    written.superseded += len(finished) - len(finishes.closed)


async def _write(
    resources: Resources,
    session: Session,
    finished: Sequence[tuple[Ended, Decided]],
    wanted: Sequence[Wanted],
    limited: set[UUID],
    written: Written,
) -> None:
    for worker_id in {ended.held.worker_id for ended, _ in finished}:
        own = [(ended, one) for ended, one in finished if ended.held.worker_id == worker_id]
        await _write_endings(resources, session, worker_id, own, written)
    woken = await wake_waiting(session, sorted(limited)) if limited else []
    mine = [job for job in woken if job.type_id in resources.handlers] if resources.identity.alive else []
    # Each place that was freed freed a slot of this worker too, so what may start now can start here.
    mine = mine[: len(finished)]
    await _tell_woken(resources, session, [job for job in woken if job not in mine], written)
    keys = [(one.tenant_id, one.job_id) for one in wanted] + [(job.tenant_id, job.job_id) for job in mine]
    if keys:
        resources.holdings.expect(written.batch_id)
        written.claims = await claim_jobs(session, written.worker_id, written.batch_id, keys, resources.timeouts_ms)


async def _write_endings(
    resources: Resources,
    session: Session,
    worker_id: UUID,
    finished: Sequence[tuple[Ended, Decided]],
    written: Written,
) -> None:
    """Finish and release the jobs of one worker id."""
    now = resources.clock.now()
    by_id = {ended.held.job.job_id: ended for ended, _ in finished}
    ending = [one for _, one in finished if isinstance(one, Finishing)]
    going = [one for _, one in finished if isinstance(one, Releasing)]
    settled: set[UUID] = set()
    if going:
        # The last of the two statements deletes the batches.
        released = await release_jobs(session, worker_id, going, batches=() if ending else written.emptied)
        settled |= released.released
        for job_id in released.cancel_wanted:
            one = by_id[job_id]
            ending.append(_finishing(one, Finish(state=JobState.CANCELLED)))
        now_ids = {job.job_id for job in going if job.due_at is None}
        if released.ready_outbox_id is not None:
            ready = [by_id[job_id].held for job_id in released.released & now_ids]
            written.tell.append((released.ready_outbox_id, [_job_record(held) for held in ready]))
        if released.later_outbox_id is not None:
            due = {job.job_id: job.due_at for job in going if job.due_at is not None}
            later = [
                _retry_record(by_id[job_id].held, due_at)
                for job_id, due_at in due.items()
                if job_id in released.released and due_at - now <= timedelta(hours=1)
            ]
            written.tell.append((released.later_outbox_id, list(later)))
    if ending:
        finishes = await finish_jobs(session, worker_id, ending, batches=written.emptied)
        settled |= finishes.closed
        _tell_ended(finishes, [(by_id[job.job_id], job) for job in ending], written)
    written.superseded += len(finished) - len(settled)


def _tell_ended(finishes: Finishes, ended: Sequence[tuple[Ended, Finishing]], written: Written) -> None:
    """The events of what was ended just now; an earlier try's are in its own outbox row."""
    if finishes.outbox_id is None:
        return
    told: list[tuple[object, ...]] = []
    for one, job in ended:
        if job.job_id in finishes.closed:
            told += event_records(_event(one, job))
            if job.reason is not None:
                log.warning("dead_letter", job_id=str(job.job_id), tenant_id=str(job.tenant_id), reason=job.reason)
    written.tell.append((finishes.outbox_id, told))


def _decided(one: Ended, *, now: datetime, jitter: float) -> Decided:
    held, job = one.held, one.held.job
    decision = decide(
        one.outcome,
        attempt=job.attempt,
        max_attempts=held.max_attempts,
        losses=job.losses,
        policy=retry_policy(held),
        jitter=jitter,
        cancel_requested=held.cancel_requested,
    )
    match decision:
        case Finish():
            return _finishing(one, decision)
        case Retry(delay_seconds=seconds, error=error):
            return Releasing(
                job.tenant_id,
                job.job_id,
                job.fence,
                AttemptKind.ATTEMPT,
                now + timedelta(seconds=seconds),
                encode(JobError(error.code, error.message, error.retryable)),
            )
        case Postpone(delay_seconds=seconds):
            due_at = now + timedelta(seconds=seconds)
            return Releasing(job.tenant_id, job.job_id, job.fence, AttemptKind.SNOOZE, due_at)
        case Requeue():
            return Releasing(job.tenant_id, job.job_id, job.fence, kind_of(one.outcome))


def _finishing(one: Ended, decision: Finish) -> Finishing:
    job, error = one.held.job, decision.error
    assert one.event_id is not None, "named before its first write"
    return Finishing(
        job.tenant_id,
        job.job_id,
        job.fence,
        decision.state,
        one.event_id,
        result=getattr(one.outcome, "result", None) if decision.state is JobState.SUCCEEDED else None,
        error=None if error is None else encode(JobError(error.code, error.message, error.retryable)),
        reason=decision.dead_letter_reason,
    )


def retry_policy(held: Held) -> RetryPolicy:
    """The job's own policy, or its handler's."""
    if held.job.retry is None:
        return held.handler.retry
    return RetryPolicy(**msgspec.json.decode(held.job.retry))


async def _tell_woken(resources: Resources, session: Session, woken: Sequence[WokenJob], written: Written) -> None:
    if not woken:
        return
    outbox_id: int = await session.fetchval(
        "insert_outbox",
        OutboxKind.READY_JOBS,
        [job.tenant_id for job in woken],
        [job.job_id for job in woken],
        None,
        [job.fence for job in woken],
    )
    records = [
        job_record(job.tenant_id, job.job_id, job.fence, job.priority, job.queue_id, job.type_id) for job in woken
    ]
    written.tell.append((outbox_id, list(records)))


def _job_record(held: Held) -> tuple[object, ...]:
    job = held.job
    return job_record(job.tenant_id, job.job_id, job.fence, job.priority, job.queue_id, job.type_id)


def _retry_record(held: Held, due_at: datetime) -> tuple[object, ...]:
    job = held.job
    return retry_record(job.tenant_id, job.job_id, job.fence, job.priority, job.queue_id, job.type_id, due_at=due_at)


def _event(one: Ended, finishing: Finishing) -> JobEvent:
    job = one.held.job
    return JobEvent(
        id=finishing.event_id,
        type=_EVENT_TYPES[finishing.state],  # type: ignore[arg-type]  # the three names that the event allows
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        job_type=one.held.handler.type,
        attempt=job.attempt - 1 if finishing.reason == "worker_lost" else job.attempt,
        fence=job.fence,
        reason=finishing.reason,
    )


def count_turn(written: Written) -> None:
    """What the turn did, for the metrics."""
    if written.superseded:
        metrics.superseded_writes.labels("job").inc(written.superseded)
        log.warning("results_superseded", jobs=written.superseded)
    if written.claims is not None:
        metrics.claims.labels("claimed").inc(len(written.claims.claimed))
        for verdict, count in written.claims.verdicts.items():
            metrics.claims.labels(Verdict(verdict).name.lower()).inc(count)
