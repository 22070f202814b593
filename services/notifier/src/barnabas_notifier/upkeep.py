"""What keeps a notifier honest: its lease, its clock, its picture of endpoints, and what Postgres thinks it holds."""

import time

import structlog

from barnabas.domain.deliveries import DeliveryState
from barnabas.postgres.deliveries import DeliveryKey, FinishingDelivery, release_deliveries
from barnabas.postgres.live_endpoints import read_endpoints
from barnabas.runtime.periodic import every
from barnabas.runtime.stop import Stop
from barnabas_notifier.resources import Resources
from barnabas_notifier.unpark import sweep_parked_once

log = structlog.get_logger(__name__)

_RECALL_SECONDS = 5.0
# No statement goes on for half as long: a claim that is older has been seen, or never was committed.
_RECALL_FOR_SECONDS = 60.0
_SWEEP_SECONDS = 20.0
# How long a deleted or disabled endpoint may still be called by what waits in its lane.
_REFRESH_SECONDS = 2.0
_REFRESH_ROWS = 1_000
_CLOCK_SECONDS = 60.0


async def keep_identity(resources: Resources, stop: Stop) -> None:
    """Hold a lease; after the drain end it, as the last of all."""
    await resources.identity.keep(stop, on_lost=resources.drop_all)
    await resources.progress.writing_over.wait()
    await resources.identity.end(holds_nothing=not resources.holdings.batches)


async def keep_clock(resources: Resources, stop: Stop) -> None:
    """Measure the database's time each minute."""
    await every(_CLOCK_SECONDS, resources.clock.synchronise, stop)


async def keep_endpoints(resources: Resources, stop: Stop) -> None:
    """Notice endpoints that were deleted, disabled or changed while deliveries wait for them."""

    async def refresh() -> None:
        if not resources.connected:
            # A notifier without records to take would never notice that Postgres is back.
            await resources.database.fetchval("read_clock")
            resources.connected = True
        await refresh_endpoints_once(resources)

    await every(_REFRESH_SECONDS, refresh, stop)


async def sweep_parked(resources: Resources, stop: Stop) -> None:
    """Find parked deliveries that no living notifier looks after."""

    async def sweep() -> None:
        if resources.identity.alive:
            await sweep_parked_once(resources)

    await every(_SWEEP_SECONDS, sweep, stop)


async def recall_batches(resources: Resources, stop: Stop) -> None:
    """Hand back what Postgres thinks we hold and we don't know, as long as a claim may have left something."""

    async def recall() -> None:
        if resources.holdings.batches or time.monotonic() - resources.holdings.claimed_at < _RECALL_FOR_SECONDS:
            await recall_batches_once(resources)

    await every(_RECALL_SECONDS, recall, stop)


async def refresh_endpoints_once(resources: Resources) -> None:
    """Read the endpoints of all lanes; what waits for a closed one is cancelled. Raises `TransientError`."""
    keys = resources.lanes.endpoints()
    for start in range(0, len(keys), _REFRESH_ROWS):
        async with resources.database.session() as session:
            endpoints = await read_endpoints(session, keys[start : start + _REFRESH_ROWS])
        for endpoint in endpoints.values():
            lane = resources.lanes.lane(endpoint.key)
            if lane is None:
                continue
            lane.endpoint = endpoint
            if endpoint.closed is not None:
                # What is parked behind them is cancelled as it is taken.
                resources.to_take.set()
                for held in resources.lanes.empty(lane):
                    delivery = held.delivery
                    resources.end(
                        held,
                        FinishingDelivery(
                            delivery.key, delivery.fence, DeliveryState.CANCELLED, None, error=endpoint.closed
                        ),
                    )


async def recall_batches_once(resources: Resources) -> int:
    """Compare lease batches with memory; how many were unknown and are handed back. Raises `TransientError`.

    They come from a commit whose answer was lost. A claim in flight is in memory before it is sent, so it isn't one.
    """
    if not resources.identity.alive:
        return 0
    worker_id = resources.identity.worker_id
    async with resources.database.session() as session:
        rows = await session.fetch("list_lease_batches", worker_id)
    unknown = [row for row in rows if row["batch_id"] not in resources.holdings.batches]
    if unknown:
        # One that was finished since the question is unknown as well; then its row is gone by now.
        async with resources.database.session() as session:
            there = {row["batch_id"] for row in await session.fetch("list_lease_batches", worker_id)}
        unknown = [row for row in unknown if row["batch_id"] in there]
    if not unknown or worker_id != resources.identity.worker_id:
        return 0
    held = [
        (DeliveryKey(*key), None)
        for row in unknown
        for key in zip(row["tenant_ids"], row["ref_ids"], row["endpoint_ids"], strict=True)
        # Claimed again since, in a batch that we know.
        if key not in resources.holdings.deliveries
    ]
    batches = [row["batch_id"] for row in unknown]
    released, _ = await resources.database.run(
        lambda session: release_deliveries(session, worker_id, held, batches=batches)
    )
    log.warning("batches_handed_back", batches=len(batches), deliveries=len(released))
    return len(unknown)
