"""Writes outcomes: one transaction for all the tries that ended meanwhile, then tells Kafka what it left to be told."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import structlog

from barnabas.contract.telling import delivery_retry_record
from barnabas.domain.deliveries import DeliveryState
from barnabas.errors import TransientError
from barnabas.postgres.database import Session
from barnabas.postgres.deliveries import (
    DeliveryFinishes,
    RefusedRowError,
    finish_deliveries,
    tell_deliveries,
)
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas.runtime.within import set_within
from barnabas_notifier.resources import Ended, Resources

log = structlog.get_logger(__name__)

_ROWS_MAX = 500
# Ends of tries and the drain wake the loop.
_WAIT_SECONDS = 30.0
# With this many calls in flight, ends come in a stream: this much patience makes one commit of many.
_BUSY_CALLS = 16
_HOLD_SECONDS = 0.005
# An acknowledged outbox row is deleted with the next batch, or by itself after this.
_IDLE_SECONDS = 0.2
_FLUSH_LIMIT_SECONDS = 3.0
# After the last call ended: how often a write is tried before it is left to the reaper.
_LAST_TRIES = 5

_rows = metrics.flush_rows.labels("deliver")
_seconds = metrics.flush_seconds.labels("deliver")
_superseded = metrics.superseded_writes.labels("delivery")
_delivered = metrics.deliveries.labels("delivered")
_dead = metrics.deliveries.labels("dead")
_disabled = metrics.deliveries.labels("disabled")


async def write_outcomes(resources: Resources, stop: Stop) -> None:
    """Write what ended until nothing more can end."""
    failures = 0
    try:
        while not (resources.progress.calling_over.is_set() and not resources.ended):
            if not resources.ended:
                await _rest(resources)
                continue
            if resources.lanes.calling >= _BUSY_CALLS and len(resources.ended) < _ROWS_MAX:
                await asyncio.sleep(_HOLD_SECONDS)
            try:
                await write_once(resources)
                failures = 0
            except TransientError as error:
                failures += 1
                log.warning("outcomes_not_written", outcomes=len(resources.ended), code=error.code, reason=str(error))
                if resources.progress.calling_over.is_set() and failures > _LAST_TRIES:
                    break
                await _pause(retry_pause(0.1, failures, jitter=resources.jitter()), stop)
        await _end_telling(resources)
    finally:
        resources.progress.writing_over.set()


async def write_once(resources: Resources) -> int:
    """Write what ended so far, at most one batch; how many moved. Raises `TransientError`, and may be repeated then."""
    batch = [resources.ended.popleft() for _ in range(min(_ROWS_MAX, len(resources.ended)))]
    worker_id = resources.identity.worker_id
    lost = [ended for ended in batch if ended.held.worker_id != worker_id]
    batch = [ended for ended in batch if ended.held.worker_id == worker_id]
    _superseded.inc(len(lost))
    reach(CrashPoint.NOTIFIER_BEFORE_OUTCOMES)
    try:
        return await _write(batch, resources) if batch else 0
    except BaseException:
        resources.ended.extendleft(reversed(batch))
        raise


async def tidy_outbox(resources: Resources, stop: Stop) -> None:
    """Delete acknowledged outbox rows when no batch does."""
    stop.on_set(resources.teller.wake)
    while not stop.is_set():
        await resources.teller.wait()
        if await stop.wait(_IDLE_SECONDS):
            return
        try:
            await tidy_outbox_once(resources)
        except TransientError as error:
            log.warning("outbox_not_tidied", code=error.code)


async def tidy_outbox_once(resources: Resources) -> None:
    """Delete the outbox rows whose records the broker has. Raises `TransientError`."""
    with resources.teller.deleting() as told:
        if told:
            reach(CrashPoint.NOTIFIER_BEFORE_FORGET)
            await resources.database.execute("delete_outbox", told)


async def _write(batch: Sequence[Ended], resources: Resources) -> int:
    """Write a batch; one row that Postgres refuses is found by halving and left to the lease's end."""
    try:
        return await _write_all(batch, resources)
    except RefusedRowError as error:
        if len(batch) == 1:
            resources.holdings.leave([batch[0].held])
            key = batch[0].held.delivery.key
            log.exception(
                "outcome_refused", event_id=str(key.event_id), endpoint_id=str(key.endpoint_id), reason=str(error)
            )
            return 0
        middle = len(batch) // 2
        return await _write(batch[:middle], resources) + await _write(batch[middle:], resources)


async def _write_all(batch: Sequence[Ended], resources: Resources) -> int:
    began = time.monotonic()
    worker_id = batch[0].held.worker_id
    batches = resources.holdings.done_batches(ended.held for ended in batch)
    with resources.teller.deleting() as told:

        async def step(session: Session) -> DeliveryFinishes:
            if told:
                await session.execute("delete_outbox", told)
            return await finish_deliveries(session, worker_id, [ended.finishing for ended in batch], batches=batches)

        finishes = await resources.database.run(step)
    resources.holdings.leave(ended.held for ended in batch)
    resources.to_send.set()
    moved = [
        ended for ended in batch if (ended.finishing.key.event_id, ended.finishing.key.endpoint_id) in finishes.moved
    ]
    if finishes.outbox_id is not None:
        reach(CrashPoint.NOTIFIER_BEFORE_TELL)
        await _tell(finishes.outbox_id, moved, resources)
    _count(batch, moved)
    _rows.observe(len(batch))
    _seconds.observe(time.monotonic() - began)
    return len(moved)


async def _tell(outbox_id: int, moved: Sequence[Ended], resources: Resources) -> None:
    dead = [ended.finishing for ended in moved if ended.finishing.state is DeliveryState.FAILED]
    # What is due later waits for its timer alone.
    horizon = resources.clock.now() + timedelta(hours=1)
    records: list[tuple[object, ...]] = [
        delivery_retry_record(*ended.finishing.key, ended.finishing.fence, due_at=ended.finishing.due_at)
        for ended in moved
        if ended.finishing.due_at is not None and ended.finishing.due_at <= horizon
    ]
    if dead:
        try:
            async with resources.database.session() as session:
                _, copies = await tell_deliveries(
                    session, [finishing.key for finishing in dead], [finishing.fence for finishing in dead]
                )
        except TransientError:
            return  # the outbox row stays, and the relay tells it
        records += copies
    resources.teller.tell(outbox_id, records)


def _count(batch: Sequence[Ended], moved: Sequence[Ended]) -> None:
    _superseded.inc(len(batch) - len(moved))
    states = [ended.finishing.state for ended in moved]
    _delivered.inc(states.count(DeliveryState.SUCCEEDED))
    _dead.inc(states.count(DeliveryState.FAILED))
    _disabled.inc(states.count(DeliveryState.CANCELLED))
    for ended in moved:
        finishing = ended.finishing
        if finishing.state is DeliveryState.FAILED:
            log.warning(
                "delivery_dead",
                tenant_id=str(finishing.key.tenant_id),
                event_id=str(finishing.key.event_id),
                endpoint_id=str(finishing.key.endpoint_id),
                reason=finishing.reason,
                error=finishing.error,
                attempt=ended.held.delivery.attempt,
            )


async def _rest(resources: Resources) -> None:
    resources.to_write.clear()
    await set_within(resources.to_write, _WAIT_SECONDS)


async def _pause(seconds: float, stop: Stop) -> None:
    # While draining the stop is set and would end every rest at once.
    if stop.is_set():
        await asyncio.sleep(min(seconds, 1.0))
    else:
        await stop.wait(seconds)


async def _end_telling(resources: Resources) -> None:
    """The last records are acknowledged and their rows deleted, or left to the relay."""
    await resources.producer.flush(_FLUSH_LIMIT_SECONDS)
    # A delivery report settles its future on the loop; its callback comes a turn later.
    await asyncio.sleep(0)
    try:
        await tidy_outbox_once(resources)
    except TransientError as error:
        log.warning("outbox_not_tidied", code=error.code)
