"""Sharing: how much tenants and priorities get where several wait, read again whenever somebody has changed it.

The lease's renewal brings the news, so a worker to whom nothing is new asks nothing.
"""

import structlog

from barnabas.domain.jobs import Priority
from barnabas.errors import TransientError
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_worker.resources import Resources

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5


async def keep_sharing(resources: Resources, stop: Stop) -> None:
    """Take over new weights and shares until the stop."""
    news = resources.news
    stop.on_set(news.changed.set)
    failures = 0
    while not stop.is_set():
        await news.changed.wait()
        news.changed.clear()
        try:
            await read_sharing(resources)
            failures = 0
        except TransientError as error:
            failures += 1
            log.warning("sharing_not_read", reason=str(error), failures=failures)
            news.changed.set()
            await stop.wait(retry_pause(_RETRY_SECONDS, failures, jitter=resources.jitter()))


async def read_sharing(resources: Resources) -> None:
    """Read weights and shares, and order the look-ahead by them from now on.

    A worker of several queues shares its slots as the first of them says.
    """
    weights = {row["tenant_id"]: row["weight"] for row in await resources.database.fetch("list_weights")}
    [queue] = await resources.database.fetch("read_shares", resources.queue_ids[0])
    shares = dict(zip(sorted(Priority), queue["shares"], strict=True))
    resources.records.set_sharing(weights=weights, shares=shares)
    log.info("sharing_read", weights=len(weights), shares=queue["shares"])
