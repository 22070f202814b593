"""Claims deliveries that may be tried again: what came by `deliveries.retry`, and what came a moment too early."""

import heapq
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import structlog

from barnabas.errors import TransientError
from barnabas.postgres.database import LeaseOverError
from barnabas.postgres.deliveries import ClaimAction, DeliveryKey, WantedDelivery, claim_deliveries
from barnabas.postgres.live_endpoints import EndpointKey, read_endpoints
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas.runtime.within import set_within
from barnabas_notifier.resources import Resources

log = structlog.get_logger(__name__)

# A record that comes early by more than this, or more of them than this, is left to its timer.
_EARLY_SECONDS_MAX = 10.0
_EARLY_ROWS_MAX = 10_000
# What comes early wakes the loop, and so does the stop.
_WAIT_SECONDS = 30.0

_disabled = metrics.deliveries.labels("disabled")


async def claim_due(keys: Sequence[DeliveryKey], resources: Resources) -> None:
    """Claim these as far as their lanes have room, park the rest; raises `TransientError` or `LeaseOverError`."""
    keys = list(dict.fromkeys(keys))
    async with resources.database.session() as session:
        endpoints = await read_endpoints(session, [_endpoint_key(key) for key in keys])
    worker_id, batch_id = resources.identity.worker_id, resources.ids.mint()
    wanted = []
    for key in keys:
        endpoint = endpoints.get(_endpoint_key(key))
        if endpoint is None or endpoint.closed is not None:
            closed = "endpoint_deleted" if endpoint is None else endpoint.closed
            wanted.append(WantedDelivery(key, ClaimAction.CANCEL, closed))
        else:
            room = resources.lanes.promise(endpoint)
            wanted.append(WantedDelivery(key, ClaimAction.CLAIM if room else ClaimAction.PARK))
    promised = Counter(_endpoint_key(one.key) for one in wanted if one.action is ClaimAction.CLAIM)
    resources.holdings.expect(batch_id)
    try:
        claims = await resources.database.run(lambda session: claim_deliveries(session, worker_id, batch_id, wanted))
        reach(CrashPoint.NOTIFIER_AFTER_CLAIM)
        resources.hold(worker_id, batch_id, claims.claimed)
    except BaseException:
        resources.holdings.unexpect(batch_id)
        raise
    finally:
        resources.lanes.keep_promises(promised)
    _disabled.inc(claims.cancelled)
    horizon = resources.clock.now() + timedelta(seconds=_EARLY_SECONDS_MAX)
    for key, due_at in claims.early:
        if due_at <= horizon and len(resources.early) < _EARLY_ROWS_MAX:
            heapq.heappush(resources.early, (due_at, key))
            resources.to_claim.set()


async def claim_early(resources: Resources, stop: Stop) -> None:
    """Claim again what came before it was due, once it is."""
    stop.on_set(resources.to_claim.set)
    while not stop.is_set():
        await set_within(resources.to_claim, _until_due(resources))
        resources.to_claim.clear()
        if stop.is_set():
            return
        now = resources.clock.now()
        due = []
        while resources.early and resources.early[0][0] <= now:
            due.append(heapq.heappop(resources.early)[1])
        if due and resources.identity.alive:
            try:
                await claim_due(due, resources)
            except LeaseOverError:
                resources.identity.lose()
            except TransientError as error:
                # Each has a timer, five seconds after it was due.
                log.warning("early_deliveries_left", deliveries=len(due), code=error.code)


def _until_due(resources: Resources) -> float:
    if not resources.early:
        return _WAIT_SECONDS
    # A millisecond more: the database reads its clock to the microsecond, and we know it only about so well.
    return min(_WAIT_SECONDS, max(0.001, (resources.early[0][0] - resources.clock.now()).total_seconds() + 0.001))


def _endpoint_key(key: DeliveryKey) -> EndpointKey:
    return EndpointKey(key.tenant_id, key.endpoint_id)
