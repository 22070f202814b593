"""Takes records: new events become delivery rows, due deliveries are claimed; then the offset moves.

Nothing here waits for HTTP, so a receiver that hangs never holds up a partition.
"""

from collections.abc import Sequence

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
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_notifier.claim import claim_due
from barnabas_notifier.resources import Resources
from barnabas_notifier.route import route_events

log = structlog.get_logger(__name__)

GROUP = "barnabas.notifier"
_RECORDS_MAX = 500
_LOOK_SECONDS = 0.5


async def take_records(resources: Resources, stop: Stop) -> None:
    """Consume `results` and `deliveries.retry` until the stop."""
    options = ConsumerOptions(
        group_protocol=resources.settings.kafka_group_protocol,
        # The same partitions of both topics, so that an endpoint's lane is in one process.
        remote_assignor="range",
    )
    try:
        async with Consumer(
            resources.settings.kafka,
            group=GROUP,
            topics=[topics.RESULTS.name, topics.DELIVERIES_RETRY.name],
            client_id="barnabas-notifier",
            options=options,
        ) as consumer:
            while not stop.is_set():
                records = await consumer.get(_RECORDS_MAX, _LOOK_SECONDS)
                if records and await _until_taken(records, consumer, resources, stop):
                    consumer.commit(_next_offsets(records))
    finally:
        resources.progress.taking_over.set()


async def take_once(records: Sequence[ConsumedRecord], resources: Resources) -> None:
    """Give every record a durable verdict; their offsets may be committed then. May be repeated after any failure."""
    events: list[JobEvent] = []
    due: list[DeliveryKey] = []
    for record in records:
        try:
            if record.topic == topics.RESULTS.name:
                events.append(decode_event(record.value))
            else:
                due.append(_delivery_key(record))
        except MalformedRecordError as error:
            log.warning(
                "record_malformed",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=str(error),
            )
    if events:
        await route_events(events, resources)
    if due:
        await claim_due(due, resources)


async def _until_taken(records: Sequence[ConsumedRecord], consumer: Consumer, resources: Resources, stop: Stop) -> bool:
    """Try until it is done; false when the stop came first, or the partitions went to somebody else."""
    failures = 0
    while not stop.is_set():
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


def _delivery_key(record: ConsumedRecord) -> DeliveryKey:
    envelope = decode(record.value)
    if envelope.kind is not RecordKind.DELIVERY:
        raise MalformedRecordError("not a delivery")
    return DeliveryKey(envelope.tenant_id, envelope.ref_id, envelope.endpoint_id)


def _next_offsets(records: Sequence[ConsumedRecord]) -> dict[TopicPartition, int]:
    # In the order of offsets within a partition, so the last one wins.
    return {record.at: record.offset + 1 for record in records}
