"""Recall: every few seconds, what Postgres thinks this worker holds is compared with its memory.

A claim whose answer was lost holds jobs that nobody runs; they are handed back, uncharged.
"""

import time
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import structlog

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Session
from barnabas.postgres.reaping import find_held_jobs
from barnabas.postgres.turns import Finishing, Releasing, Turn, take_turn
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import every
from barnabas.runtime.stop import Stop
from barnabas_worker.resources import Resources

log = structlog.get_logger(__name__)

_SECONDS = 5.0
# No statement goes on for half as long: a claim that is older has been seen, or never was committed.
_FOR_SECONDS = 60.0


async def recall_batches(resources: Resources, stop: Stop) -> None:
    """Compare every five seconds, as long as a claim may have left something."""

    async def recall() -> None:
        if resources.holdings.batches or time.monotonic() - resources.holdings.claimed_at < _FOR_SECONDS:
            await recall_once(resources)

    await every(_SECONDS, recall, stop)


async def recall_once(resources: Resources) -> int:
    """Hand back the jobs of batches that this process doesn't know; returns how many jobs that were."""
    worker_id = resources.identity.worker_id
    rows = await resources.database.fetch("list_lease_batches", worker_id)
    reach(CrashPoint.WORKER_BEFORE_RECALL)
    unknown = [row for row in rows if not resources.holdings.knows(row["batch_id"])]
    if unknown:
        # One that was finished since the question is unknown as well, and its jobs may be ours again under another
        # batch: then its row is gone, because it is forgotten only after that. What is there still was never known.
        there = {row["batch_id"] for row in await resources.database.fetch("list_lease_batches", worker_id)}
        unknown = [row for row in unknown if row["batch_id"] in there]
    handed_back = 0
    for row in unknown:
        # What was taken from us and claimed again is held under a batch that we know.
        held = resources.holdings.jobs
        keys = [key for key in zip(row["tenant_ids"], row["ref_ids"], strict=True) if key[1] not in held]
        # Its outbox row tells the relay: this is too rare to be worth a path of its own to Kafka.
        handed_back += await resources.database.run(partial(_hand_back, resources, worker_id, row["batch_id"], keys))
    # A batch whose end was being written at this moment is no news.
    if handed_back:
        log.warning("unknown_batches_handed_back", batches=len(unknown), jobs=handed_back)
    return handed_back


async def _hand_back(
    resources: Resources, worker_id: UUID, batch_id: UUID, keys: Sequence[tuple[UUID, UUID]], session: Session
) -> int:
    # Gates and lines come before jobs in the order of locks.
    await session.fetch("lock_gates", sorted({key[0] for key in keys}))
    await session.execute("lock_order", [key[0] for key in keys], [key[1] for key in keys])
    held = await find_held_jobs(session, worker_id, keys)
    if not held:
        await session.execute("delete_lease_batches", [batch_id])
        return 0
    going = [Releasing(job.tenant_id, job.job_id, job.fence, AttemptKind.HAND_BACK) for job in held]
    turned = await take_turn(session, Turn(worker_id=worker_id, releasing=going, done=[batch_id]))
    # Nobody will run those whose cancel was asked for, so nobody else would end them.
    cancelled = [
        Finishing(job.tenant_id, job.job_id, job.fence, JobState.CANCELLED, resources.ids.mint())
        for job in held
        if job.job_id in turned.cancel_wanted
    ]
    if cancelled:
        await take_turn(session, Turn(worker_id=worker_id, finishing=cancelled, ordered=True))
    return len(held)
