"""Reading: records of the jobs topics go into the look-ahead, their offsets are committed once they have a verdict."""

from collections.abc import Mapping, Sequence

import structlog

from barnabas.contract.records import RecordKind, decode
from barnabas.contract.topics import topics_of_queues
from barnabas.errors import DatabaseUnavailableError, MalformedRecordError, TransientError
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.postgres.ids import make_id
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas_worker.backlog import make_room
from barnabas_worker.resources import Resources

log = structlog.get_logger(__name__)

GROUP = "barnabas.worker"
# Small enough that a full look-ahead, which stops the reading, is noticed within some milliseconds.
_RECORDS_MAX = 2_000
# While records wait for a verdict their offsets want to be committed soon after it; else records wake the reading.
_WAIT_SECONDS = 0.2
_IDLE_SECONDS = 5.0
_FULL_SECONDS = 0.02
_LOOK_SECONDS = 1.0


async def take_records(resources: Resources, stop: Stop) -> None:
    """Read until the stop; leaving the group comes first then, so that others take over at once.

    A worker that has had no lease for as long as one lasts leaves it, too: it can claim nothing, and would keep the
    records of its partitions from those who can.
    """
    while not stop.is_set():
        if await resources.identity.wait_alive(_LOOK_SECONDS):
            await _read(resources, stop)


async def _read(resources: Resources, stop: Stop) -> None:
    """A member of the group until the stop, or until the lease has been away for too long."""

    async def on_revoked(partitions: Sequence[TopicPartition], lost: bool) -> Mapping[TopicPartition, int] | None:
        commits = {} if lost else resources.records.take_commits(only=partitions)
        resources.records.forget(partitions)
        return commits

    async with Consumer(
        resources.settings.kafka,
        group=GROUP,
        topics=[topic.name for topic in topics_of_queues(resources.settings.queues)],
        client_id="barnabas-worker",
        # `range` gives one member the same partitions of all four topics. Workers of other queues are in the same
        # group, and each gets partitions of what it subscribed to.
        options=ConsumerOptions(group_protocol=resources.settings.kafka_group_protocol, remote_assignor="range"),
        on_revoked=on_revoked,
    ) as consumer:
        stop.on_set(consumer.wake)
        waiting: list[ConsumedRecord] = []
        while not stop.is_set():
            if resources.identity.away_seconds > resources.settings.lease_seconds:
                log.warning("group_left", reason="no lease for as long as one lasts")
                break
            if commits := resources.records.take_commits():
                reach(CrashPoint.WORKER_BEFORE_OFFSETS)
                consumer.commit(commits)
            await _read_missed_queues(resources)
            if waiting:
                await _find_room(resources, len(waiting), stop)
            else:
                waiting = [
                    record
                    for record in await consumer.get(_RECORDS_MAX, _wait_seconds(resources))
                    if consumer.is_current(record)
                ]
                resources.records.note(waiting)
            waiting = [record for record in waiting if consumer.is_current(record)]
            left = take(resources, waiting)
            waiting = waiting[len(waiting) - left :] if left else []
        if commits := resources.records.take_commits():
            consumer.commit(commits)
        resources.records.clear()


async def _find_room(resources: Resources, records: int, stop: Stop) -> None:
    """The look-ahead is full: park whoever has too much of it, or rest until turns have taken something."""
    try:
        if await make_room(resources, records):
            return
    except TransientError as error:
        log.warning("backlog_not_parked", reason=str(error))
    await stop.wait(_FULL_SECONDS)


async def _read_missed_queues(resources: Resources) -> None:
    """A turn woke jobs of a queue that is younger than this process: the relay sends those, the next go from here."""
    try:
        await resources.queues.read_missed()
    except DatabaseUnavailableError:
        pass  # the next one that is missed asks again


def _wait_seconds(resources: Resources) -> float:
    return _WAIT_SECONDS if len(resources.records) or resources.holdings.batches else _IDLE_SECONDS


def take(resources: Resources, consumed: Sequence[ConsumedRecord]) -> int:
    """Put records into the look-ahead; returns how many of them, at the end, found no room."""
    for index, record in enumerate(consumed):
        try:
            envelope = decode(record.value, make_id)
            if envelope.kind is not RecordKind.JOB:
                raise MalformedRecordError("an envelope that doesn't name a job")
        except MalformedRecordError as error:
            # What it meant can't be known; the job itself is in Postgres, and the reconciler finds it.
            log.warning(
                "poison_record", topic=record.topic, partition=record.partition, offset=record.offset, reason=str(error)
            )
            metrics.claims.labels("poison").inc()
            resources.records.skip(record)
            continue
        if not resources.records.push(record, envelope):
            resources.work.set()
            return len(consumed) - index
    resources.work.set()
    return 0
