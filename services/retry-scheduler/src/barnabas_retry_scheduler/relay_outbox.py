"""The relay: tells of outbox rows whose writer has not, because it died, or because Kafka was away."""

import structlog

from barnabas.domain.recovery import OUTBOX_STALE_SECONDS
from barnabas.postgres.outbox import list_stale_outbox
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import answer
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import tell_rows

log = structlog.get_logger(__name__)

# A row is a flushed batch of up to a few hundred jobs, or a single post of a quiet hour: a step tells of so many rows
# at least, and of as many more as have about so many records.
_ROWS_MIN = 20
_ROWS_MAX = 2_000
_RECORDS = 2_000


async def relay_outbox(resources: Resources, stop: Stop) -> None:
    """Relay whenever the question has seen an old row."""

    async def step() -> float | None:
        return 0.0 if await relay_once(resources) else None

    await answer(resources.bells.outbox, step, stop)


async def relay_once(resources: Resources, *, stale_seconds: float = OUTBOX_STALE_SECONDS) -> int:
    """Tell of the oldest rows left behind; returns how many there were, fewer than a batch or none when that was all.

    Raises `BrokerUnavailableError` when Kafka doesn't acknowledge.
    """
    async with resources.database.session() as session:
        rows = await list_stale_outbox(session, age_seconds=stale_seconds, limit=_ROWS_MIN)
        if len(rows) == _ROWS_MIN:
            most = min(_ROWS_MAX, _ROWS_MIN * _RECORDS // max(1, sum(len(row.ref_ids) for row in rows)))
            if most > _ROWS_MIN:
                rows = await list_stale_outbox(session, age_seconds=stale_seconds, limit=most)
    if not rows:
        return 0
    reach(CrashPoint.RELAY_BEFORE_SEND)
    records = await tell_rows(resources, rows)
    # What is told this late is young in Kafka, however long ago it became ready.
    resources.lost.told_late(
        from_at=rows[0].created_at.timestamp(),
        until_at=rows[-1].created_at.timestamp(),
        told_at=resources.clock.now().timestamp(),
    )
    metrics.relay_published.inc(records)
    log.info("outbox_relayed", rows=len(rows), records=records)
    return len(rows)
