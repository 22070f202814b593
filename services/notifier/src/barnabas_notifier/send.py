"""Sends: takes deliveries from the lanes in turn, reads what they carry in one query a group, and makes the calls."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from barnabas.contract.events import event_time, webhook_body
from barnabas.contract.telling import delivery_record
from barnabas.domain.deliveries import (
    ConnectFailed,
    Delivered,
    DeliveryDecision,
    DeliveryState,
    GiveUp,
    HttpAnswer,
    Refused,
    RetryDelivery,
    TimedOut,
    decide_delivery,
)
from barnabas.errors import TransientError
from barnabas.postgres.database import Database
from barnabas.postgres.deliveries import Call, FinishingDelivery, release_deliveries
from barnabas.postgres.jobs import StoredJob, read_jobs
from barnabas.postgres.live_endpoints import LiveEndpoint
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas.runtime.within import set_within
from barnabas_notifier.caller import Called
from barnabas_notifier.lanes import Held
from barnabas_notifier.resources import Resources

log = structlog.get_logger(__name__)

# What one read of jobs carries: their results may be a megabyte each.
_GROUP_MAX = 64
# Bodies in flight; above it nothing more is read until some have been sent.
_BODY_BYTES_MAX = 48 * 1024 * 1024
# Outcomes that wait to be written; above it nothing more is sent.
_UNWRITTEN_MAX = 2_000
# What may be sent and the stop wake the loop.
_WAIT_SECONDS = 30.0
# With this many calls in flight, ends come in a stream: this much patience makes one group of many.
_BUSY_CALLS = 16
_HOLD_SECONDS = 0.003
# Of the drain's time, the part in which calls may still end by themselves; the rest is for writing.
_DRAIN_SHARE = 0.7
_TAKING_LIMIT_SECONDS = 5.0

_attempts = {
    outcome: metrics.delivery_attempts.labels(outcome)
    for outcome in ("delivered", "refused", "timeout", "unreachable", "forbidden", "gone")
}
_seconds = {outcome: metrics.delivery_attempt_seconds.labels(outcome) for outcome in _attempts}


async def send_deliveries(resources: Resources, stop: Stop) -> None:
    """Keep calls in flight until the stop, then let them end and hand back the rest."""
    bodies = _Bodies()
    failures = 0
    stop.on_set(resources.to_send.set)
    try:
        async with asyncio.TaskGroup() as calls:
            while not stop.is_set():
                if resources.lanes.calling >= _BUSY_CALLS:
                    await asyncio.sleep(_HOLD_SECONDS)
                group = [] if _is_full(resources, bodies) else resources.lanes.take(_GROUP_MAX)
                if not group:
                    await _rest(resources, stop)
                    continue
                try:
                    await _start_calls(group, calls, bodies, resources)
                    failures = 0
                except TransientError as error:
                    failures += 1
                    log.warning("deliveries_not_read", deliveries=len(group), code=error.code, reason=str(error))
                    await stop.wait(retry_pause(0.1, failures, jitter=resources.jitter()))
            await _drain(resources)
    finally:
        resources.progress.calling_over.set()
        resources.to_write.set()


class _Bodies:
    """Bytes of the bodies in flight."""

    def __init__(self) -> None:
        self.bytes = 0


def _is_full(resources: Resources, bodies: _Bodies) -> bool:
    return bodies.bytes > _BODY_BYTES_MAX or len(resources.ended) > _UNWRITTEN_MAX


async def _rest(resources: Resources, stop: Stop) -> None:
    resources.to_send.clear()
    if not stop.is_set():
        await set_within(resources.to_send, _WAIT_SECONDS)


async def _start_calls(group: Sequence[Held], calls: asyncio.TaskGroup, bodies: _Bodies, resources: Resources) -> None:
    """Read the jobs of a group and start its calls; on a failure the group is back in its lanes."""
    try:
        jobs = await _read(group, resources.database)
    except BaseException:
        _return_to_lanes(group, resources)
        raise
    made: dict[UUID, bytes] = {}
    for held in group:
        key = held.delivery.key
        lane = resources.lanes.lane(held.endpoint_key)
        assert lane is not None, "a delivery that was taken has a lane"
        if not _is_ours(held, resources):
            resources.lanes.called(held)
            continue
        stored = jobs.get((key.tenant_id, held.delivery.job_id))
        if lane.endpoint.closed is not None:
            _cancel(held, lane.endpoint.closed, resources)
        elif stored is None or stored.event_id != key.event_id:
            # Its retention is over, or the record named an event that never was: there is nothing to send.
            _cancel(held, "job_expired", resources)
        else:
            body = made.get(key.event_id)
            if body is None:
                body = made[key.event_id] = webhook_body(key.event_id, f"job.{stored.view.status}", stored.view)
            bodies.bytes += len(body)
            call = _call(held, lane.endpoint, body, bodies, resources)
            resources.holdings.calls[held] = calls.create_task(call)


async def _read(group: Sequence[Held], database: Database) -> dict[tuple[UUID, UUID], StoredJob]:
    keys = sorted({(held.delivery.key.tenant_id, held.delivery.job_id) for held in group})
    async with database.session() as session:
        return {(stored.tenant_id, stored.view.id): stored for stored in await read_jobs(session, keys)}


async def _call(held: Held, endpoint: LiveEndpoint, body: bytes, bodies: _Bodies, resources: Resources) -> None:
    started_at, began = resources.clock.now(), time.monotonic()
    try:
        called = await resources.caller.call(endpoint, held.delivery.key.event_id, body)
        if _is_ours(held, resources):
            seconds = time.monotonic() - began
            decision = decide_delivery(
                called.outcome, attempt=held.delivery.attempt, schedule=endpoint.schedule, jitter=resources.jitter()
            )
            outcome = _outcome(called, decision)
            _attempts[outcome].inc()
            _seconds[outcome].observe(seconds)
            duration_ms = round(seconds * 1000)
            call = Call(started_at, duration_ms, called.status, _error(decision), called.excerpt or None)
            if isinstance(decision, Delivered):
                age = resources.clock.now() - event_time(held.delivery.key.event_id)
                metrics.delivery_end_to_end_seconds.observe(age.total_seconds())
            resources.end(held, _finishing(held, decision, call, resources))
    finally:
        bodies.bytes -= len(body)
        resources.holdings.calls.pop(held, None)
        resources.lanes.called(held)
        resources.to_send.set()
        resources.to_take.set()


def _finishing(held: Held, decision: DeliveryDecision, call: Call, resources: Resources) -> FinishingDelivery:
    key, fence = held.delivery.key, held.delivery.fence
    match decision:
        case Delivered():
            return FinishingDelivery(key, fence, decision.state, call)
        case RetryDelivery(delay_seconds=delay):
            # Up to the microsecond, as the database keeps it: a repeated write must say the same.
            due_at = resources.clock.now() + timedelta(seconds=delay)
            return FinishingDelivery(key, fence, decision.state, call, due_at=due_at, error=decision.error_code)
        case GiveUp():
            return FinishingDelivery(
                key,
                fence,
                decision.state,
                call,
                error=decision.error_code,
                reason=decision.reason.value,
                disable_endpoint=decision.disable_endpoint,
            )


def _cancel(held: Held, error: str, resources: Resources) -> None:
    key, fence = held.delivery.key, held.delivery.fence
    resources.lanes.called(held)
    resources.end(held, FinishingDelivery(key, fence, DeliveryState.CANCELLED, None, error=error))


def _return_to_lanes(group: Sequence[Held], resources: Resources) -> None:
    ours = [held for held in group if _is_ours(held, resources)]
    resources.lanes.push_back(ours)
    for held in group:
        if not _is_ours(held, resources):
            resources.lanes.called(held)


def _is_ours(held: Held, resources: Resources) -> bool:
    return resources.identity.alive and held.worker_id == resources.identity.worker_id


def _error(decision: DeliveryDecision) -> str | None:
    return None if isinstance(decision, Delivered) else decision.error_code


def _outcome(called: Called, decision: DeliveryDecision) -> str:
    match called.outcome:
        case HttpAnswer():
            if isinstance(decision, Delivered):
                return "delivered"
            return "gone" if isinstance(decision, GiveUp) and decision.disable_endpoint else "refused"
        case TimedOut():
            return "timeout"
        case ConnectFailed():
            return "unreachable"
        case Refused():
            return "forbidden"


async def _drain(resources: Resources) -> None:
    """Hand back what waits, let calls end by themselves as long as there is time, and hand back the rest."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + resources.settings.drain_seconds * _DRAIN_SHARE
    try:
        async with asyncio.timeout(min(_TAKING_LIMIT_SECONDS, resources.settings.drain_seconds * _DRAIN_SHARE)):
            await resources.progress.taking_over.wait()
    except TimeoutError:
        log.warning("taking_overdue")
    await _hand_back(resources.lanes.empty_all(), resources)
    calls = list(resources.holdings.calls.values())
    if calls:
        await asyncio.wait(calls, timeout=max(0.0, deadline - loop.time()))
    late = dict(resources.holdings.calls)
    for call in late.values():
        call.cancel()
    await asyncio.gather(*late.values(), return_exceptions=True)
    # What came in after the lanes were emptied.
    await _hand_back([*late, *resources.lanes.empty_all()], resources)


async def _hand_back(unsent: Sequence[Held], resources: Resources) -> None:
    ours = [held for held in unsent if _is_ours(held, resources)]
    if not ours:
        return
    reach(CrashPoint.NOTIFIER_BEFORE_HAND_BACK)
    worker_id, batches = resources.identity.worker_id, resources.holdings.done_batches(ours)
    try:
        released, outbox_id = await resources.database.run(
            lambda session: release_deliveries(
                session, worker_id, [(held.delivery.key, held.delivery.fence) for held in ours], batches=batches
            )
        )
    except TransientError as error:
        # Its lease runs out, and the reaper hands them back then.
        log.warning("deliveries_not_handed_back", deliveries=len(ours), code=error.code)
        return
    resources.holdings.leave(ours)
    if outbox_id is not None:
        known = set(released)
        resources.teller.tell(
            outbox_id,
            [
                delivery_record(*held.delivery.key, held.delivery.fence)
                for held in ours
                if held.delivery.key.event_id in known
            ],
        )
    log.info("deliveries_handed_back", deliveries=len(released))
