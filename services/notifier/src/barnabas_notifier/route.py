"""Routes events: one row for each endpoint that wants an event, already held here as far as its lane has room.

The row is unique for (tenant, event, endpoint), so an event that comes twice makes one delivery. What has no room is
parked in Postgres; what a disabled endpoint misses is a row too, cancelled with the reason.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import structlog

from barnabas.contract.events import JobEvent
from barnabas.domain.deliveries import DeliveryState
from barnabas.postgres.deliveries import (
    ClaimedDelivery,
    DeliveryKey,
    NewDelivery,
    RefusedRowError,
    open_deliveries,
)
from barnabas.postgres.live_endpoints import EndpointKey, LiveEndpoint
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas_notifier.resources import Resources

log = structlog.get_logger(__name__)

# One event may go to many endpoints: a batch of rows has its own bound, and no more than that is made at a time.
_ROWS_MAX = 1_000

_disabled = metrics.deliveries.labels("disabled")


@dataclass(frozen=True, slots=True)
class _Pair:
    event: JobEvent
    endpoint: LiveEndpoint


async def route_events(
    events: Sequence[JobEvent], endpoints: Mapping[UUID, Sequence[LiveEndpoint]], resources: Resources
) -> None:
    """Write and hold the deliveries of these events; `endpoints` are those of their tenants, just read.

    Raises `TransientError` or `LeaseOverError`, and may be repeated then.
    """
    # The same event may be in the batch twice.
    distinct = {event.id: event for event in events}.values()
    pairs = (
        _Pair(event, endpoint)
        # A tenant of few endpoints doesn't wait until those of hundreds are written.
        for event in sorted(distinct, key=lambda event: len(endpoints.get(event.tenant_id, ())))
        for endpoint in endpoints.get(event.tenant_id, ())
        if endpoint.wants(event.type)
    )
    while batch := list(islice(pairs, _ROWS_MAX)):
        await _open(batch, resources)


async def _open(pairs: Sequence[_Pair], resources: Resources) -> None:
    """Write a batch; one row that Postgres refuses is found by halving and left out, and harms no other."""
    try:
        await _open_all(pairs, resources)
    except RefusedRowError as error:
        if len(pairs) == 1:
            event = pairs[0].event
            log.exception("event_refused", event_id=str(event.id), tenant_id=str(event.tenant_id), reason=str(error))
            return
        middle = len(pairs) // 2
        await _open(pairs[:middle], resources)
        await _open(pairs[middle:], resources)


async def _open_all(pairs: Sequence[_Pair], resources: Resources) -> None:
    worker_id, batch_id = resources.identity.worker_id, resources.ids.mint()
    rows = list(_rows(pairs, resources))
    promised = Counter(_endpoint_key(row.key) for row in rows if row.state is DeliveryState.RUNNING)
    resources.holdings.expect(batch_id)
    try:
        opened = await resources.database.run(lambda session: open_deliveries(session, worker_id, batch_id, rows))
        reach(CrashPoint.NOTIFIER_AFTER_DELIVERIES)
        resources.hold(
            worker_id,
            batch_id,
            [
                ClaimedDelivery(row.key, row.job_id, fence=1, attempt=1)
                for row in rows
                if opened.get(row.key) is DeliveryState.RUNNING
            ],
        )
    except BaseException:
        resources.holdings.unexpect(batch_id)
        raise
    finally:
        resources.lanes.keep_promises(promised)
    _disabled.inc(sum(state is DeliveryState.CANCELLED for state in opened.values()))


def _rows(pairs: Sequence[_Pair], resources: Resources) -> Iterable[NewDelivery]:
    for pair in pairs:
        key = DeliveryKey(pair.event.tenant_id, pair.event.id, pair.endpoint.key.endpoint_id)
        state = DeliveryState.CANCELLED
        if pair.endpoint.closed is None:
            state = DeliveryState.RUNNING if resources.lanes.promise(pair.endpoint) else DeliveryState.PARKED
        yield NewDelivery(key, resources.ids.mint(), pair.event.job_id, state, pair.endpoint.closed)


def _endpoint_key(key: DeliveryKey) -> EndpointKey:
    return EndpointKey(key.tenant_id, key.endpoint_id)
