"""Recall: every few seconds, what Postgres thinks this worker holds is compared with its memory.

A claim whose answer was lost holds jobs that nobody runs; they are handed back, uncharged.
"""

import time
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import structlog

from barnabas.domain.attempts import AttemptKind
from barnabas.postgres.database import Session
from barnabas.postgres.turns import Releasing, Turn, take_turn
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
    # A batch that was finished since the question has no held jobs: handing it back finds nothing.
    unknown = [row for row in rows if not resources.holdings.knows(row["batch_id"])]
    handed_back = 0
    for row in unknown:
        keys = list(zip(row["tenant_ids"], row["ref_ids"], strict=True))
        # Its outbox row tells the relay: this is too rare to be worth a path of its own to Kafka.
        handed_back += await resources.database.run(partial(_hand_back, worker_id, row["batch_id"], keys))
    # A batch whose end was being written at this moment is no news.
    if handed_back:
        log.warning("unknown_batches_handed_back", batches=len(unknown), jobs=handed_back)
    return handed_back


async def _hand_back(worker_id: UUID, batch_id: UUID, keys: Sequence[tuple[UUID, UUID]], session: Session) -> int:
    tenants, jobs = [key[0] for key in keys], [key[1] for key in keys]
    await session.fetch("lock_gates", tenants)
    held = await session.fetch("find_held_jobs", worker_id, tenants, jobs)
    going = [Releasing(row["tenant_id"], row["job_id"], row["fence"], AttemptKind.HAND_BACK) for row in held]
    if not going:
        await session.execute("delete_lease_batches", [batch_id])
        return 0
    turned = await take_turn(session, Turn(worker_id=worker_id, releasing=going, done=[batch_id]))
    return len(turned.released)
