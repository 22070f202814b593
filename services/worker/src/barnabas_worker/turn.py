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
from barnabas.contract.telling import event_records, job_record, retry_record
from barnabas.domain.attempts import AttemptKind, Cancelled, Finish, Postpone, Requeue, Retry, decide, kind_of
from barnabas.domain.backoff import RetryPolicy
from barnabas.domain.jobs import Hook, JobState
from barnabas.kafka.routes import Outgoing
from barnabas.postgres.database import Session
from barnabas.postgres.turns import Claim, Claims, Finishing, Releasing, Turn, Turned, Verdict, WokenJob, take_turn
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas_worker.holdings import Ended, Held
from barnabas_worker.look_ahead import Wanted
from barnabas_worker.resources import Resources

log = structlog.get_logger(__name__)

_EVENT_TYPES = {
    JobState.SUCCEEDED: "job.succeeded",
    JobState.FAILED: "job.failed",
    JobState.CANCELLED: "job.cancelled",
}


# A plain number: a flag's own & costs a microsecond, and is asked for each job.
_ORDERED = int(Hook.ORDERED)

Decided = Finishing | Releasing


@dataclass(slots=True)
class Written:
    """What one turn did, to be acted on after its commit."""

    worker_id: UUID
    """Whoever claims; the endings name the holder of each job."""
    batch_id: UUID
    claims: Claims | None = None
    woken: list[WokenJob] = field(default_factory=list)
    """Jobs that may start now in the place of those that ended, to be taken in fair order."""
    again: list[Ended] = field(default_factory=list)
    """Attempts that are to be written once more: their job's row was changed, or its cancel asked for, meanwhile."""
    tell: list[tuple[int, list[Outgoing | tuple[object, ...]]]] = field(default_factory=list)
    """Outbox rows and the records that they stand for."""
    superseded: int = 0
    acknowledged: list[int] = field(default_factory=list)
    """Outbox rows that this turn deletes."""
    emptied: list[UUID] = field(default_factory=list)
    """Lease batches that this turn deletes."""


async def write_turn(
    resources: Resources,
    session: Session,
    finished: Sequence[Ended],
    wanted: Sequence[Wanted],
    *,
    worker_id: UUID,
    spare: int,
) -> Written:
    """Write the endings and the claims; nothing of this process' memory changes but what a retry may repeat.

    `spare` woken jobs may be claimed beyond `wanted`. Raises `LeaseOverError`, and `DatabaseUnavailableError`: what was
    written is unknown then, and the same endings are to be handed in again.
    """
    written = Written(worker_id, resources.ids.mint())
    now = resources.clock.now()
    if finished:
        reach(CrashPoint.WORKER_BEFORE_FINISH)
    decided = [(one, _decided(one, now=now, jitter=resources.jitter())) for one in finished]
    try:
        with (
            resources.teller.deleting() as written.acknowledged,
            resources.holdings.deleting() as written.emptied,
        ):
            if written.acknowledged:
                reach(CrashPoint.WORKER_BEFORE_FORGET)
            for old_id in {one.held.worker_id for one in finished} - {worker_id}:
                # What an earlier id of this process held is ended under that id.
                own = [(one, decision) for one, decision in decided if one.held.worker_id == old_id]
                turn = _turn(resources, old_id, own)
                _note(resources, own, await take_turn(session, turn), written)
            own = [(one, decision) for one, decision in decided if one.held.worker_id == worker_id]
            turn = _turn(resources, worker_id, own, written, wanted, spare)
            turned = await take_turn(session, turn)
    except BaseException:
        # If the claim was committed all the same, the recall finds its batch and hands the jobs back.
        resources.holdings.unexpect(written.batch_id)
        raise
    _note(resources, own, turned, written)
    return written


async def tidy(resources: Resources, session: Session) -> None:
    """When idle: delete what the next turn would have deleted in passing."""
    with resources.teller.deleting() as acknowledged, resources.holdings.deleting() as emptied:
        if acknowledged:
            await session.execute("delete_outbox", acknowledged)
        if emptied:
            await session.execute("delete_lease_batches", emptied)


def _turn(
    resources: Resources,
    worker_id: UUID,
    own: Sequence[tuple[Ended, Decided]],
    written: Written | None = None,
    wanted: Sequence[Wanted] = (),
    spare: int = 0,
) -> Turn:
    """One worker id's statement; that of the current id also deletes what is done with, and claims."""
    claim = None
    if written is not None and (wanted or spare):
        resources.holdings.expect(written.batch_id)
        keys = [(one.tenant_id, one.job_id) for one in wanted]
        claim = Claim(batch_id=written.batch_id, keys=keys, types=resources.timeouts_ms)
    return Turn(
        worker_id=worker_id,
        told=() if written is None else written.acknowledged,
        finishing=[decision for _, decision in own if isinstance(decision, Finishing)],
        releasing=[decision for _, decision in own if isinstance(decision, Releasing)],
        ordered=any(one.held.job.hooks & _ORDERED for one, _ in own),
        hold=resources.settings.ordered_dead_letters == "block",
        done=() if written is None else written.emptied,
        spare=spare,
        keep=claim is not None,
        claim=claim,
    )


def _note(resources: Resources, own: Sequence[tuple[Ended, Decided]], turned: Turned, written: Written) -> None:
    """What came of one statement: whom to tell what, and what is left to do."""
    settled = turned.closed | turned.already | turned.released | turned.cancel_wanted
    unsettled = [one for one, decision in own if decision.job_id not in settled]
    written.superseded += sum(one.tried for one in unsettled)
    written.again += [
        Ended(one.held, one.outcome, one.seconds, one.event_id, True) for one in unsettled if not one.tried
    ]
    written.claims = turned.claims
    written.woken += turned.kept
    if turned.ended_outbox_id is not None:
        ended = [(one, job) for one, job in own if isinstance(job, Finishing) and job.job_id in turned.closed]
        written.tell.append((turned.ended_outbox_id, _events(ended)))
    if turned.ready_outbox_id is not None:
        written.tell.append(
            (turned.ready_outbox_id, [_job_record(one.held) for one, _ in _gone(own, turned, now=True)])
        )
    if turned.later_outbox_id is not None:
        later = [
            _retry_record(one.held, job.due_at)
            for one, job in _gone(own, turned, now=False)
            if job.due_at is not None and job.due_at - resources.clock.now() <= timedelta(hours=1)
        ]
        written.tell.append((turned.later_outbox_id, list(later)))
    for outbox_id, woken in turned.told.items():
        records = [
            job_record(job.tenant_id, job.job_id, job.fence, job.priority, job.queue_id, job.type_id) for job in woken
        ]
        written.tell.append((outbox_id, list(records)))
    for one, decision in own:
        if decision.job_id in turned.cancel_wanted:
            one.held.cancel_requested = True
            written.again.append(Ended(one.held, Cancelled(), one.seconds, one.event_id))


def _gone(own: Sequence[tuple[Ended, Decided]], turned: Turned, *, now: bool) -> list[tuple[Ended, Releasing]]:
    """What was let go, at once or for later."""
    return [
        (one, job)
        for one, job in own
        if isinstance(job, Releasing) and job.job_id in turned.released and (job.due_at is None) is now
    ]


def _events(ended: Sequence[tuple[Ended, Finishing]]) -> list[Outgoing | tuple[object, ...]]:
    """The events of what was ended just now; an earlier try's are in its own outbox row."""
    told: list[Outgoing | tuple[object, ...]] = []
    for one, job in ended:
        told += event_records(_event(one, job))
        if job.reason is not None:
            log.warning("dead_letter", job_id=str(job.job_id), tenant_id=str(job.tenant_id), reason=job.reason)
    return told


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
