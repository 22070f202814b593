"""Delayed records on their way: from `retries` through the delay tiers to the topic where their work is taken.

A record stays in its tier until the tier's delay is over (or it is due, whichever comes first), then hops to the
largest tier that fits what is left, and waits out the last second in memory with its offset open. An offset is committed
only after the next topic has acknowledged the record; a crash in between sends it twice, and the claim drops one of them.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from barnabas.contract import topics
from barnabas.contract.records import decode
from barnabas.contract.telling import topic_when_due
from barnabas.domain.offsets import Offsets
from barnabas.errors import BrokerUnavailableError, MalformedRecordError, OverloadedError
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.kafka.producer import OutgoingRecord, Producer
from barnabas.runtime import metrics
from barnabas.runtime.clock import DatabaseClock
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.delay_line import DelayLine, Departure, Resting
from barnabas_retry_scheduler.resources import Resources

log = structlog.get_logger(__name__)

GROUP = "barnabas.retry-scheduler"
SOURCES = (topics.RETRIES, *topics.DELAY_TIERS)

_DELAYS = {topic.name: topic.delay_seconds for topic in SOURCES}
_TIERS = {topic.delay_seconds: topic.name for topic in topics.DELAY_TIERS}

_BATCH_RECORDS = 1_000
# A job that arrives before it is due by the database's clock is sent to its timer, five seconds late.
_NEVER_EARLY_SECONDS = 0.002
_UNCERTAINTY_SECONDS_MAX = 0.05
_PAUSE_SECONDS = 0.1
_PAUSE_CAP_SECONDS = 2.0
# What is held in queues needs no long inbox in front of them.
_OPTIONS_INBOX_RECORDS = 4_000


class Carrier:
    """Carries the records of the partitions that this process holds. Lives on one event loop."""

    def __init__(self, consumer: Consumer, producer: Producer, clock: DatabaseClock, line: DelayLine) -> None:
        self.consumer = consumer
        self.offsets = Offsets()
        self._producer = producer
        self._clock = clock
        self._line = line
        self._lateness = {topic.name: metrics.retry_lateness_seconds.labels(_label(topic.name)) for topic in SOURCES}

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Begin anew with these partitions."""
        self._line.forget(partitions)
        for at in partitions:
            self.offsets.assign(*at)

    async def revoked(self, partitions: Sequence[TopicPartition], lost: bool) -> Mapping[TopicPartition, int]:
        """Let go of these partitions; what they have open comes again to whoever has them next."""
        moved = {} if lost else {TopicPartition(*at): offset for at, offset in self.offsets.committable().items()}
        self._line.forget(partitions)
        for at in partitions:
            self.offsets.revoke(*at)
        return {at: moved[at] for at in partitions if at in moved}

    async def carry_once(self, stop: Stop) -> int:
        """Take in what has arrived and pass on what leaves; waits for either, at most a second. How many have left."""
        now = self._now()
        rest = max(0.0, self._line.next_at(now) - now)
        self._take_in(await self.consumer.get(_BATCH_RECORDS, rest))
        leaving = self._line.depart(self._now(), _TIERS, limit=_BATCH_RECORDS)
        if leaving:
            await self._send(leaving, stop)
        if to_pause := self._line.to_pause():
            self.consumer.pause(to_pause)
        if to_resume := self._line.to_resume():
            self.consumer.resume(to_resume)
        self._commit()
        return len(leaving)

    def _now(self) -> float:
        # Seen from here everything is due a little later, never earlier, than the database says.
        margin = _NEVER_EARLY_SECONDS + min(self._clock.uncertainty_seconds, _UNCERTAINTY_SECONDS_MAX)
        return self._clock.now().timestamp() - margin

    def _take_in(self, records: Sequence[ConsumedRecord]) -> None:
        resting = []
        for record in records:
            epoch = self.offsets.epoch(record.topic, record.partition)
            if epoch is None or not self.offsets.add(record.topic, record.partition, epoch=epoch, offset=record.offset):
                continue
            try:
                envelope = decode(record.value)
            except MalformedRecordError as error:
                metrics.malformed_records.labels(record.topic).inc()
                log.warning(
                    "record_malformed",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    reason=str(error),
                )
                self.offsets.resolve(record.topic, record.partition, epoch=epoch, offset=record.offset)
                continue
            due_at = envelope.due_ms / 1_000
            resting.append(
                Resting(
                    # It may be due before the tier's delay is over: then nothing is gained by staying.
                    leaves_at=min(record.timestamp_ms / 1_000 + _DELAYS[record.topic], due_at),
                    due_at=due_at,
                    destination=topic_when_due(envelope),
                    at=record.at,
                    offset=record.offset,
                    epoch=epoch,
                    key=record.key,
                    value=record.value or b"",
                )
            )
        self._line.add(resting)

    async def _send(self, leaving: Sequence[Departure], stop: Stop) -> None:
        """Send until acknowledged: an unknown outcome is sent again."""
        failures = 0
        unsent = list(leaving)
        while True:
            # Whoever has a partition now sends its records.
            unsent = [each for each in unsent if self.offsets.epoch(*each.record.at) == each.record.epoch]
            by_topic: dict[str, list[Departure]] = {}
            for each in unsent:
                by_topic.setdefault(each.topic, []).append(each)
            unsent = []
            sent = [self._produce(topic, group) for topic, group in by_topic.items()]
            for group, result in zip(by_topic.values(), await asyncio.gather(*sent), strict=True):
                if result is None:
                    self._resolve(group)
                else:
                    unsent += group
            if not unsent:
                return
            failures += 1
            pause = min(_PAUSE_CAP_SECONDS, retry_pause(_PAUSE_SECONDS, failures, jitter=0.5))
            log.warning("delayed_records_unsent", records=len(unsent), failures=failures, rest_seconds=round(pause, 3))
            # At the stop what is unsent stays in its tier, its offset uncommitted.
            if await stop.wait(pause):
                return

    async def _produce(self, topic: str, group: Sequence[Departure]) -> Exception | None:
        records: list[OutgoingRecord] = [(each.record.key, each.record.value, None) for each in group]
        try:
            await self._producer.send(topic, records)
        except (BrokerUnavailableError, OverloadedError) as error:
            return error
        return None

    def _resolve(self, group: Sequence[Departure]) -> None:
        now = self._now()
        by_partition: dict[TopicPartition, list[Resting]] = {}
        late: dict[str, list[float]] = {}
        for each in group:
            record = each.record
            by_partition.setdefault(record.at, []).append(record)
            if each.topic == record.destination and record.due_at:
                late.setdefault(record.at.topic, []).append(now - record.due_at)
        for at, records in by_partition.items():
            self.offsets.resolve_many(*at, epoch=records[0].epoch, offsets=[record.offset for record in records])
        for topic, seconds in late.items():
            metrics.observe_all(self._lateness[topic], seconds)

    def _commit(self) -> None:
        if moved := self.offsets.committable():
            self.consumer.commit({TopicPartition(*at): offset for at, offset in moved.items()})
            self.offsets.committed(moved)


def open_carrier(resources: Resources) -> Carrier:
    """A carrier in the product's group; enter its consumer to begin."""
    carrier: Carrier

    def assigned(partitions: Sequence[TopicPartition]) -> None:
        carrier.assigned(partitions)

    async def revoked(partitions: Sequence[TopicPartition], lost: bool) -> Mapping[TopicPartition, int]:
        return await carrier.revoked(partitions, lost)

    consumer = Consumer(
        resources.settings.kafka,
        group=GROUP,
        topics=[topic.name for topic in SOURCES],
        client_id="barnabas-retry-scheduler",
        options=ConsumerOptions(
            group_protocol=resources.settings.kafka_group_protocol, inbox_records=_OPTIONS_INBOX_RECORDS
        ),
        on_assigned=assigned,
        on_revoked=revoked,
    )
    carrier = Carrier(consumer, resources.producer, resources.clock, resources.line)
    return carrier


async def carry_delays(resources: Resources, stop: Stop) -> None:
    """Carry until the stop; partitions move on at once then."""
    carrier = open_carrier(resources)
    async with carrier.consumer:
        while not stop.is_set():
            await carrier.carry_once(stop)


def _label(topic: str) -> str:
    return topic.rpartition("barnabas.")[2]
