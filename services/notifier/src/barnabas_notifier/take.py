"""Takes records: new events become delivery rows, due deliveries are claimed; then the offset moves.

Nothing here waits for HTTP, so a receiver that hangs never holds up a partition.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog

from barnabas.contract import topics
from barnabas.contract.events import JobEvent, decode_event
from barnabas.contract.records import RecordKind, decode
from barnabas.errors import MalformedRecordError, TransientError
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.postgres.database import LeaseOverError
from barnabas.postgres.deliveries import DeliveryKey
from barnabas.postgres.live_endpoints import find_endpoints
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_notifier.claim import claim_due
from barnabas_notifier.resources import Resources
from barnabas_notifier.route import route_events

log = structlog.get_logger(__name__)

T = TypeVar("T")

GROUP = "barnabas.notifier"
_RECORDS_MAX = 2_000
# Under load a webhook may come this much later; each delivery of records wakes the loop for some 100 us.
_HOLD_SECONDS = 0.02
# How long to wait for a lease before the stop and the assignment are looked at again.
_LOOK_SECONDS = 0.5


class _CutOffError(Exception):
    """There has been no lease for as long as one lasts."""


async def take_records(resources: Resources, stop: Stop) -> None:
    """Consume `results` and `deliveries.retry` until the stop.

    A notifier that has had no lease for as long as one lasts leaves the group until it has one again: it can't store
    what it reads, and would keep the records of its partitions from those who can.
    """
    try:
        while not stop.is_set():
            if await resources.identity.wait_alive(_LOOK_SECONDS):
                try:
                    await _read(resources, stop)
                except _CutOffError:
                    log.warning("group_left", reason="no lease for as long as one lasts")
    finally:
        resources.progress.taking_over.set()


async def _read(resources: Resources, stop: Stop) -> None:
    """A member of the group until the stop; raises `_CutOffError`, and then nothing of what it holds is committed."""
    options = ConsumerOptions(
        group_protocol=resources.settings.kafka_group_protocol,
        # The same partitions of both topics, so that an endpoint's lane is in one process.
        remote_assignor="range",
        hold_seconds=_HOLD_SECONDS,
    )
    async with Consumer(
        resources.settings.kafka,
        group=GROUP,
        topics=[topics.RESULTS.name, topics.DELIVERIES_RETRY.name],
        client_id="barnabas-notifier",
        options=options,
    ) as consumer:
        stop.on_set(consumer.wake)
        moved: dict[tuple[str, int], ConsumedRecord] = {}
        while not stop.is_set():
            _refuse_cut_off(resources)
            consumed = await consumer.get(_RECORDS_MAX, resources.aside.rest_seconds)
            moved.update([((record.topic, record.partition), record) for record in consumed])
            records = resources.aside.put(consumed)
            # The older ones first.
            records = resources.aside.take() + records
            if records:
                await _until_taken(records, consumer, resources, stop)
            if moved and not resources.aside and not stop.is_set():
                reach(CrashPoint.NOTIFIER_BEFORE_OFFSETS)
                consumer.commit(_next_offsets([record for record in moved.values() if consumer.is_current(record)]))
                moved.clear()


def _refuse_cut_off(resources: Resources) -> None:
    if resources.identity.away_seconds > resources.settings.lease_seconds:
        raise _CutOffError


async def take_once(records: Sequence[ConsumedRecord], resources: Resources) -> None:
    """Give every record a durable verdict; their offsets may be committed then. May be repeated after any failure."""
    results = [record for record in records if record.topic == topics.RESULTS.name]
    if results:
        await _take_events(results, resources)
    due = _decoded((record for record in records if record.topic != topics.RESULTS.name), _delivery_key)
    if due:
        await claim_due(due, resources)


async def _take_events(records: Sequence[ConsumedRecord], resources: Resources) -> None:
    """Only events of tenants who have an endpoint are read: whose an event is, its record's key says."""
    tenants = {key: _tenant_id(key) for key in {record.key for record in records}}
    async with resources.database.session() as session:
        endpoints = await find_endpoints(session, {tenant_id for tenant_id in tenants.values() if tenant_id})
    without = {key for key, tenant_id in tenants.items() if tenant_id is not None and tenant_id not in endpoints}
    resources.aside.learn(tenants, without=without)
    events = _decoded((record for record in records if record.key not in without), _event)
    if events:
        reach(CrashPoint.NOTIFIER_BEFORE_DELIVERIES)
        await route_events(events, endpoints, resources)


def _decoded(records: Iterable[ConsumedRecord], decoded: Callable[[ConsumedRecord], T]) -> list[T]:
    """What these records say; one that can't be read is skipped."""
    read: list[T] = []
    for record in records:
        try:
            read.append(decoded(record))
        except MalformedRecordError as error:
            log.warning(
                "record_malformed",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=str(error),
            )
    return read


async def _until_taken(records: Sequence[ConsumedRecord], consumer: Consumer, resources: Resources, stop: Stop) -> bool:
    """Try until it is done; false when the stop came first, or the partitions went to somebody else."""
    failures = 0
    while not stop.is_set():
        _refuse_cut_off(resources)
        current = [record for record in records if consumer.is_current(record)]
        if not current:
            return False
        try:
            if await resources.identity.wait_alive(_LOOK_SECONDS):
                await take_once(current, resources)
                resources.connected = True
                return True
        except LeaseOverError:
            resources.identity.lose()
        except TransientError as error:
            failures += 1
            resources.connected = False
            log.warning("records_not_taken", records=len(current), code=error.code, reason=str(error))
            await stop.wait(retry_pause(0.1, failures, jitter=resources.jitter()))
    return False


def _tenant_id(key: bytes | None) -> UUID | None:
    try:
        return UUID((key or b"").decode())
    except ValueError:
        return None


def _event(record: ConsumedRecord) -> JobEvent:
    if _tenant_id(record.key) is None:
        raise MalformedRecordError("the key names no tenant")
    return decode_event(record.value)


def _delivery_key(record: ConsumedRecord) -> DeliveryKey:
    envelope = decode(record.value)
    if envelope.kind is not RecordKind.DELIVERY:
        raise MalformedRecordError("not a delivery")
    return DeliveryKey(envelope.tenant_id, envelope.ref_id, envelope.endpoint_id)


def _next_offsets(records: Sequence[ConsumedRecord]) -> dict[TopicPartition, int]:
    # In the order of offsets within a partition, so the last one wins.
    return {record.at: record.offset + 1 for record in records}
