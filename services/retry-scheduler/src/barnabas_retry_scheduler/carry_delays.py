"""Delayed records on their way: from `retries` through the delay tiers to the topic where their work is taken.

A record stays in its tier until the tier's delay is over (or it is due, whichever comes first), then hops to the
largest tier that fits what is left, and waits out the last second in memory with its offset open. An offset is
committed only after the next topic has acknowledged the record; a crash in between sends it twice, and the claim drops
one of them.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence

import structlog

from barnabas.contract import topics
from barnabas.contract.records import decode
from barnabas.domain.offsets import Offsets
from barnabas.errors import (
    BrokerUnavailableError,
    DatabaseUnavailableError,
    MalformedRecordError,
    OverloadedError,
    UnknownQueueError,
)
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.kafka.producer import OutgoingRecord, Producer
from barnabas.kafka.routes import Routes
from barnabas.postgres.queues import Queues
from barnabas.runtime import metrics
from barnabas.runtime.clock import DatabaseClock
from barnabas.runtime.crash_points import CrashPoint, reach
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
# A broker that is slow to acknowledge holds up the records that go to it, not those behind them.
_IN_FLIGHT_RECORDS = 5_000
_IN_FLIGHT_BATCHES = 64
# When a carrier sent it on, in Unix milliseconds by the database's clock. By the broker's, which stamps it too, a tier
# whose broker is behind would let it go at once: it would circle as fast as Kafka can until it is due.
_SENT_HEADER = "barnabas-sent-ms"
# A job that arrives before it is due by the database's clock is sent to its timer, five seconds late.
_NEVER_EARLY_SECONDS = 0.002
_UNCERTAINTY_SECONDS_MAX = 0.05
_LANDING_SECONDS = 0.5
# Records and the stop wake the carrier.
_IDLE_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_PAUSE_CAP_SECONDS = 2.0
# What is held in queues needs no long inbox in front of them.
_OPTIONS_INBOX_RECORDS = 4_000


class Carrier:
    """Carries the records of the partitions that this process holds. Lives on one event loop."""

    def __init__(
        self,
        consumer: Consumer,
        producer: Producer,
        routes: Routes,
        queues: Queues,
        clock: DatabaseClock,
        line: DelayLine,
    ) -> None:
        self.consumer = consumer
        self.offsets = Offsets()
        self._producer = producer
        self._routes = routes
        self._queues = queues
        self._clock = clock
        self._line = line
        self._in_flight_records = 0
        self._in_flight_batches = 0
        self._landed = asyncio.Event()
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

    async def carry(self, stop: Stop) -> None:
        """Take in what arrives and pass on what leaves, until the stop; what is on its way then may still land."""
        stop.on_set(self.consumer.wake)
        async with asyncio.TaskGroup() as sends:
            while not stop.is_set():
                await self._carry_once(stop, sends)
        self._commit()

    async def _carry_once(self, stop: Stop, sends: asyncio.TaskGroup) -> None:
        """One round: waits for a record, or for one that leaves, at most a second unless nothing is held."""
        now = self._now()
        limit = _IN_FLIGHT_RECORDS - self._in_flight_records if self._in_flight_batches < _IN_FLIGHT_BATCHES else 0
        if limit <= 0:
            await self._wait_for_landing()
        else:
            # What lands meanwhile is committed within a second; with nothing held, only a record can change anything.
            at_rest = not self._line and not self._in_flight_batches
            rest = _IDLE_SECONDS if at_rest else max(0.0, self._line.next_at(now) - now)
            self._take_in(await self.consumer.get(_BATCH_RECORDS, rest))
            await self._read_missed_queues()
            leaving = self._line.depart(self._now(), _TIERS, limit=min(limit, _BATCH_RECORDS))
            if leaving:
                self._in_flight_records += len(leaving)
                self._in_flight_batches += 1
                sends.create_task(self._send(leaving, stop))
        if to_pause := self._line.to_pause():
            self.consumer.pause(to_pause)
        if to_resume := self._line.to_resume():
            self.consumer.resume(to_resume)
        self._commit()

    async def _read_missed_queues(self) -> None:
        try:
            await self._queues.read_missed()
        except DatabaseUnavailableError:
            pass  # delays go on without it; the next record of that queue asks again

    async def _wait_for_landing(self) -> None:
        self._landed.clear()
        try:
            async with asyncio.timeout(_LANDING_SECONDS):
                await self._landed.wait()
        except TimeoutError:
            pass  # nothing has landed; the loop looks at the stop and comes back

    def _now(self) -> float:
        # Seen from here everything is due a little later, never earlier, than the database says.
        margin = _NEVER_EARLY_SECONDS + min(self._clock.uncertainty_seconds, _UNCERTAINTY_SECONDS_MAX)
        return self._clock.now().timestamp() - margin

    def _take_in(self, records: Sequence[ConsumedRecord]) -> None:
        resting = []
        now = self._clock.now().timestamp()
        for record in records:
            epoch = self.offsets.epoch(record.topic, record.partition)
            if epoch is None or not self.offsets.add(record.topic, record.partition, epoch=epoch, offset=record.offset):
                continue
            try:
                envelope = decode(record.value)
                destination = self._routes.topic_when_due(envelope)
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
            except UnknownQueueError:
                # The queue is younger than this process. The job's timer brings it, five seconds late.
                self.offsets.resolve(record.topic, record.partition, epoch=epoch, offset=record.offset)
                continue
            due_at = envelope.due_ms / 1_000
            # A producer's clock may be ahead; what is here was sent before now.
            sent_at = min(_sent_ms(record) / 1_000, now)
            resting.append(
                Resting(
                    # It may be due before the tier's delay is over: then nothing is gained by staying.
                    leaves_at=min(sent_at + _DELAYS[record.topic], due_at),
                    due_at=due_at,
                    destination=destination,
                    at=record.at,
                    offset=record.offset,
                    epoch=epoch,
                    key=record.key,
                    value=record.value or b"",
                )
            )
        self._line.add(resting)

    async def _send(self, leaving: Sequence[Departure], stop: Stop) -> None:
        """Send until acknowledged."""
        try:
            await self._send_until_acknowledged(leaving, stop)
        finally:
            self._in_flight_records -= len(leaving)
            self._in_flight_batches -= 1
            self._landed.set()

    async def _send_until_acknowledged(self, leaving: Sequence[Departure], stop: Stop) -> None:
        """An unknown outcome is sent again, unless the partition has gone to somebody else."""
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
            reach(CrashPoint.DELAYS_AFTER_SEND)
            for group, result in zip(by_topic.values(), await asyncio.gather(*sent), strict=True):
                if result is None:
                    self._resolve(group)
                else:
                    unsent += group
            if not unsent:
                return
            failures += 1
            pause = min(_PAUSE_CAP_SECONDS, retry_pause(_PAUSE_SECONDS, failures, jitter=random.random()))
            log.warning("delayed_records_unsent", records=len(unsent), failures=failures, rest_seconds=round(pause, 3))
            # At the stop what is unsent stays in its tier, its offset uncommitted.
            if await stop.wait(pause):
                return

    async def _produce(self, topic: str, group: Sequence[Departure]) -> Exception | None:
        sent = [(_SENT_HEADER, b"%d" % self._clock.now_ms())] if topic in _DELAYS else None
        records: list[OutgoingRecord] = [(self._key(topic, each.record), each.record.value, sent) for each in group]
        try:
            await self._producer.send(topic, records)
        except (BrokerUnavailableError, OverloadedError) as error:
            return error
        return None

    def _key(self, topic: str, record: Resting) -> bytes | None:
        # On its last hop a job of a hot tenant goes to one of several partitions, as a new one does.
        return self._routes.key_when_due(decode(record.value)) if topic == record.destination else record.key

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


def _sent_ms(record: ConsumedRecord) -> int:
    """When it came into its topic. What no carrier sent has the time that Kafka knows."""
    for name, value in record.headers:
        if name == _SENT_HEADER and value is not None and value.isdigit():
            return int(value)
    return record.timestamp_ms


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
    carrier = Carrier(consumer, resources.producer, resources.routes, resources.queues, resources.clock, resources.line)
    return carrier


async def carry_delays(resources: Resources, stop: Stop) -> None:
    """Carry until the stop; partitions move on at once then."""
    carrier = open_carrier(resources)
    async with carrier.consumer:
        await carrier.carry(stop)


def _label(topic: str) -> str:
    return topic.rpartition("barnabas.")[2]
