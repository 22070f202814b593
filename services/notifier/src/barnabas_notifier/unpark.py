"""Takes parked deliveries back: into lanes that have room again, and those of dead notifiers by a sweep."""

import structlog

from barnabas.errors import TransientError
from barnabas.postgres.database import LeaseOverError
from barnabas.postgres.deliveries import LaneRoom, find_parked_endpoints, take_parked_deliveries
from barnabas.postgres.live_endpoints import EndpointKey, read_endpoints
from barnabas.runtime import metrics
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas.runtime.within import set_within
from barnabas_notifier.resources import NOWHERE, Resources

log = structlog.get_logger(__name__)

# Lanes that one statement fills.
_LANES_MAX = 50
# Parked deliveries of a closed endpoint that one statement cancels.
_CANCEL_MAX = 500
# Endpoints that one sweep looks at: it goes on from there next time.
_SWEEP_MAX = 200
# Ends of calls, the sweep and the stop wake the loop.
_WAIT_SECONDS = 30.0
# Lanes ask again at once while they drain; this bounds how often an endpoint with few parked ones is asked.
_REST_SECONDS = 0.02

_disabled = metrics.deliveries.labels("disabled")


async def take_parked(resources: Resources, stop: Stop) -> None:
    """Fill lanes from Postgres whenever they have room."""
    failures = 0
    stop.on_set(resources.to_take.set)
    while not stop.is_set():
        await set_within(resources.to_take, _WAIT_SECONDS)
        resources.to_take.clear()
        if not resources.identity.alive:
            continue
        try:
            if await take_parked_once(resources):
                # There may be more, in these lanes or in others.
                resources.to_take.set()
            failures = 0
        except LeaseOverError:
            resources.identity.lose()
        except TransientError as error:
            failures += 1
            log.warning("parked_deliveries_not_taken", code=error.code, reason=str(error))
            await stop.wait(retry_pause(0.1, failures, jitter=resources.jitter()))
            resources.to_take.set()
        else:
            await stop.wait(_REST_SECONDS)


async def take_parked_once(resources: Resources) -> int:
    """One statement for all lanes with room; how many deliveries it brought.

    Raises `TransientError` or `LeaseOverError`.
    """
    lanes = resources.lanes.promise_parked(_LANES_MAX)
    if not lanes:
        return 0
    promised = {lane.endpoint.key: room for lane, room in lanes}
    parkings = {lane.endpoint.key: lane.parkings for lane, _ in lanes}
    rooms = [
        LaneRoom(
            lane.endpoint.key.tenant_id,
            lane.endpoint.key.endpoint_id,
            room if lane.endpoint.closed is None else _CANCEL_MAX,
            lane.endpoint.closed,
        )
        for lane, room in lanes
    ]
    worker_id, batch_id = resources.identity.worker_id, resources.ids.mint()
    resources.holdings.expect(batch_id)
    try:
        taken, counts = await resources.database.run(
            lambda session: take_parked_deliveries(session, worker_id, batch_id, rooms)
        )
        resources.hold(worker_id, batch_id, taken)
        for lane, _ in lanes:
            key = lane.endpoint.key
            asked = next(each.room for each in rooms if (each.tenant_id, each.endpoint_id) == key)
            if counts.get(key, 0) < asked:
                resources.lanes.parked_are_taken(lane, parkings[key])
    except BaseException:
        resources.holdings.unexpect(batch_id)
        raise
    finally:
        resources.lanes.keep_promises(promised)
    _disabled.inc(sum(counts.values()) - len(taken))
    return len(taken)


async def sweep_parked_once(resources: Resources) -> int:
    """Find endpoints whose parked deliveries nobody alive looks after but us; returns how many.

    Raises `TransientError`.
    """
    async with resources.database.session() as session:
        found = await find_parked_endpoints(
            session, resources.identity.worker_id, after=resources.sweep_after, limit=_SWEEP_MAX
        )
        resources.sweep_after = EndpointKey(*found[-1][0]) if len(found) == _SWEEP_MAX else NOWHERE
        ours = [EndpointKey(*key) for key, is_ours in found if is_ours]
        endpoints = await read_endpoints(session, ours) if ours else {}
    for key in ours:
        if (endpoint := endpoints.get(key)) is not None:
            resources.lanes.note_parked(resources.lanes.meet(endpoint))
    if ours:
        resources.to_take.set()
    return len(ours)
