"""Backlog: what no look-ahead has room for waits in Postgres, so that nobody's flood stands before his neighbours.

A full look-ahead gives up the newest records of whoever takes more than his share, each with a durable verdict, and
reads on. Workers fetch such jobs again when few of them are left in memory; until the last has been fetched, ingest
puts the tenant's new jobs behind them.
"""

from collections.abc import Sequence

import structlog

from barnabas.errors import TransientError
from barnabas.postgres.turns import fetch_backlog, park_backlog
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_worker.look_ahead import Wanted
from barnabas_worker.resources import Resources

log = structlog.get_logger(__name__)

_PARK_ROWS = 2_000
# Fetched when fewer than this are left in memory: some turns' worth, so that none waits for a fetch.
_FETCHED_MIN = 1_500
_TENANTS = 50
_EACH = 100
_LONE_EACH = 2_000
_LOOK_SECONDS = 0.02
_EMPTY_SECONDS = 0.25
_RETRY_SECONDS = 0.25


async def make_room(resources: Resources, records_at_hand: int) -> bool:
    """Park the surplus of tenants above their share; false when nobody is above it and the reading has to rest.

    Raises `DatabaseUnavailableError`; what was not parked then is next again.
    """
    given = resources.records.shed(records_at_hand)
    while given:
        portion = given[:_PARK_ROWS]
        try:
            async with resources.database.session() as session:
                await park_backlog(session, [(one.tenant_id, one.job_id, one.queue_id) for one in portion])
        except BaseException:
            resources.records.put_back(given)
            raise
        reach(CrashPoint.WORKER_AFTER_PARK)
        resources.records.settle(portion)
        metrics.claims.labels("backlog").inc(len(portion))
        log.info("backlog_parked", jobs=len(portion), tenants=_tenants(portion))
        del given[:_PARK_ROWS]
        if not given:
            return True
    return False


async def fetch_backlogs(resources: Resources, stop: Stop) -> None:
    """While tenants have a backlog, keep some of it in memory."""
    news = resources.news
    stop.on_set(news.backlog.set)
    failures = 0
    while not stop.is_set():
        await news.backlog.wait()
        if stop.is_set():
            return
        try:
            rest = await fetch_once(resources)
            failures = 0
        except TransientError as error:
            failures += 1
            rest = retry_pause(_RETRY_SECONDS, failures, jitter=resources.jitter())
            log.warning("backlog_not_fetched", reason=str(error), failures=failures)
        await stop.wait(rest)


async def fetch_once(resources: Resources) -> float:
    """Fetch the next ones if few are left; returns after how many seconds to look again."""
    if resources.records.woken >= _FETCHED_MIN or not resources.identity.alive:
        return _LOOK_SECONDS
    async with resources.database.session() as session:
        fetched = await fetch_backlog(session, resources.queue_ids, tenants=_TENANTS, each=_EACH)
        if fetched and len({job.tenant_id for job in fetched}) == 1:
            # Nobody to share with: larger portions cost less.
            fetched += await fetch_backlog(session, resources.queue_ids, tenants=1, each=_LONE_EACH)
    if fetched:
        reach(CrashPoint.WORKER_AFTER_FETCH)
    resources.records.push_woken(fetched)
    resources.work.set()
    return _LOOK_SECONDS if fetched else _EMPTY_SECONDS


def _tenants(portion: Sequence[Wanted]) -> int:
    return len({one.tenant_id for one in portion})
