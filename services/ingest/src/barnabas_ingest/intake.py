"""The intake topic: what producers write to Kafka directly becomes jobs by the same step as what comes by HTTP.

How far a partition has been stored is moved in the transaction that stores its records, from the value that was read to
the next: a record is one job whatever crashes, and whoever lost the partition writes nothing. Kafka's own offset is
only for measuring lag. A bad record is copied to the rejected topic before the partition moves past it, and so is one
above its tenant's rate: whoever wrote it may send it again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from barnabas.contract import topics
from barnabas.contract.problems import Problem, ProblemError, problem, problem_of
from barnabas.domain.grouping import RateMeter, hold_seconds
from barnabas.errors import BrokerUnavailableError, DatabaseUnavailableError, TransientError
from barnabas.kafka.admin import Admin
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas.kafka.producer import OutgoingRecord
from barnabas.postgres.database import Session
from barnabas.postgres.queues import TooManyQueuesError
from barnabas.postgres.submissions import (
    Accepted,
    IntakeMovedError,
    RateLimitedError,
    Submission,
    UnstorableError,
    accept_jobs,
    accept_keyed_jobs,
    move_intake_offsets,
    read_intake_offsets,
)
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_ingest.flush import ready_records, told_jobs
from barnabas_ingest.intake_ahead import Portion, ReadAhead
from barnabas_ingest.intake_record import BadRecord, Wanted, read_records, rejected_headers
from barnabas_ingest.resources import Resources
from barnabas_ingest.submit import DEFAULT_QUEUE_ID, queue_id, submission

log = structlog.get_logger(__name__)

GROUP = "barnabas.ingest"
# Records and the stop wake the reading.
_POLL_SECONDS = 30.0
_RETRY_SECONDS = 0.2

_ACCEPTED = metrics.submissions.labels("kafka", "accepted")
_REPLAYED = metrics.submissions.labels("kafka", "replayed")
_REJECTED = metrics.submissions.labels("kafka", "rejected")
_LIMITED = metrics.submissions.labels("kafka", "limited")
_SUPERSEDED = metrics.superseded_writes.labels("intake")
_ROWS = metrics.flush_rows.labels("intake")
_SECONDS = metrics.flush_seconds.labels("intake")


_KEY_REUSED = problem("idempotency_key_reused", "the key belongs to a job with another body")
# The topic's limit for a record, less what Kafka writes around it.
_COPY_BYTES_MAX = topics.RECORD_BYTES_MAX - 8_192

_Row = tuple[Wanted, Submission]
_Copy = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


class _UnwantedError(Exception):
    """Nothing was stored, because of these records: their idempotency key belongs to another body, or their tenant is
    above its rate. They are rejected, and the rest goes without them."""

    def __init__(self, bad: Sequence[BadRecord]) -> None:
        super().__init__()
        self.bad = bad


async def take_intake(resources: Resources, stop: Stop) -> None:
    """Store what arrives on the intake topic until the stop."""
    async with Admin(resources.settings.kafka, client_id="barnabas-ingest") as admin:
        intake = Intake(resources, admin)
        async with intake.consumer(GROUP) as consumer:
            await intake.run(consumer, stop)


class Intake:
    """One member of the group: how far each of its partitions is stored, and the step that stores more."""

    def __init__(
        self,
        resources: Resources,
        admin: Admin,
        *,
        topic: str = topics.INTAKE.name,
        rejected_topic: str = topics.INTAKE_REJECTED.name,
    ) -> None:
        self._resources = resources
        self._admin = admin
        self._topic = topic
        self._rejected_topic = rejected_topic
        self._topic_id = ""
        self._stored: dict[int, int] = {}
        self._rejected: set[int] = set()
        """Records of the portion at hand that the rejected topic has: when it is stored at the second try, they stay
        so and aren't copied again."""
        self._arrivals = RateMeter()

    def consumer(self, group: str) -> Consumer:
        """The consumer that begins where Postgres says."""
        return Consumer(
            self._resources.settings.kafka,
            group=group,
            topics=[self._topic],
            client_id="barnabas-ingest",
            options=ConsumerOptions(group_protocol=self._resources.settings.kafka_group_protocol),
            start_offsets=self.start_offsets,
        )

    async def start_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to read on; a topic that was made again has another id and begins at 0."""
        _, ids = await self._admin.topic_ids([self._topic])
        if self._topic not in ids:
            raise BrokerUnavailableError(f"there is no topic {self._topic}")
        self._topic_id = ids[self._topic]
        async with self._resources.database.session() as session:
            stored = await read_intake_offsets(session, self._topic_id, [at.partition for at in partitions])
        self._stored.update(stored)
        return {at: stored[at.partition] for at in partitions}

    async def run(self, consumer: Consumer, stop: Stop) -> None:
        """Store one flush after the other, and read the next while one is stored."""
        ahead = ReadAhead()
        stop.on_set(consumer.wake)
        stop.on_set(ahead.close)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(consumer, ahead, stop), name="intake-read")
            both.create_task(self._store_portions(consumer, ahead, stop), name="intake-store")

    async def _read(self, consumer: Consumer, ahead: ReadAhead, stop: Stop) -> None:
        while room := await ahead.room():
            records = await consumer.get(room, _POLL_SECONDS)
            self._arrivals.add(len(records), now=self._resources.clock.monotonic())

            async def read(records: Sequence[ConsumedRecord] = records) -> None:
                wanted, bad = await read_records(records, self._resources.credentials, self._resources.clock)
                ahead.put(Portion(records, wanted, bad))

            if records:
                await _until_done(read, len(records), stop)
                # With a full inbox nothing above waits, and a flush full takes 2 ms to read: others get their turn.
                await asyncio.sleep(0)

    async def _store_portions(self, consumer: Consumer, ahead: ReadAhead, stop: Stop) -> None:
        while await ahead.some():
            await ahead.full_within(hold_seconds(self._arrivals.rate(now=self._resources.clock.monotonic())))
            portion = ahead.take()
            self._rejected.clear()

            async def store(portion: Portion = portion) -> None:
                try:
                    await self.store(consumer, portion)
                except IntakeMovedError:
                    _SUPERSEDED.inc(len(portion.records))
                    await self._begin_again(consumer)

            await _until_done(store, len(portion.records), stop)

    async def store(self, consumer: Consumer, portion: Portion) -> None:
        """Store a portion: every record becomes one job or one rejected record, and its partition moves past it.

        Raises `IntakeMovedError` when someone newer has stored them, and a `TransientError` when it may work later:
        then nothing of what is left has been stored.
        """
        fresh = self._fresh(consumer, portion)
        await self._reject(fresh.bad)
        wanted = fresh.wanted
        if self._rejected:
            wanted = [one for one in wanted if id(one.record) not in self._rejected]
        await self._store(fresh.records, wanted)
        ends = _ends(fresh.records)
        consumer.commit({TopicPartition(self._topic, partition): offset for partition, offset in ends.items()})
        reach(CrashPoint.INTAKE_AFTER_OFFSETS)

    def _fresh(self, consumer: Consumer, portion: Portion) -> Portion:
        """Without records of a partition that has gone meanwhile, and without what is stored already."""

        def is_fresh(record: ConsumedRecord) -> bool:
            return consumer.is_current(record) and record.offset >= self._stored.get(record.partition, 0)

        # Under one assignment offsets of a partition grow: when the first is fresh, so are all (0.1 us a record instead
        # of 0.4).
        firsts = {(record.partition, record.epoch): record for record in reversed(portion.records)}
        if all(is_fresh(first) for first in firsts.values()):
            return portion
        return portion.only(is_fresh)

    async def _store(self, records: Sequence[ConsumedRecord], wanted: Sequence[Wanted]) -> None:
        """One transaction, in halves where Postgres refuses a row, without those that are found to be unwanted."""
        if not records:
            return
        started = self._resources.clock.monotonic()
        ends = _ends(records)
        moves = {partition: (self._stored.get(partition, 0), end) for partition, end in ends.items()}
        rows, bad = await self._rows(wanted)
        await self._reject(bad)
        jobs = [row for _, row in rows]

        async def step(session: Session) -> Accepted | None:
            await move_intake_offsets(session, self._topic_id, moves)
            accepted = await _accept(session, rows) if rows else None
            reach(CrashPoint.INTAKE_BEFORE_COMMIT)
            return accepted

        try:
            accepted = await self._resources.database.run(step)
        except _UnwantedError as error:
            await self._reject(error.bad)
            unwanted = {id(record) for record, _ in error.bad}
            await self._store(records, [one for one, _ in rows if id(one.record) not in unwanted])
            return
        except UnstorableError as error:
            if len(records) == 1:
                await self._reject([(records[0], problem_of(error))])
                await self._store(records, [])
                return
            middle = len(records) // 2
            for half in (records[:middle], records[middle:]):
                some = {id(record) for record in half}
                await self._store(half, [one for one, _ in rows if id(one.record) in some])
            return
        reach(CrashPoint.INTAKE_AFTER_COMMIT)
        self._stored.update(ends)
        if accepted is not None:
            if accepted.outbox_id is not None:
                self._resources.teller.tell(accepted.outbox_id, ready_records(told_jobs(jobs, accepted)))
            replayed = sum(holder is not None and not holder.made for holder in accepted.holders)
            _ACCEPTED.inc(len(jobs) - replayed)
            _REPLAYED.inc(replayed)
        _ROWS.observe(len(records))
        _SECONDS.observe(self._resources.clock.monotonic() - started)

    async def _rows(self, wanted: Sequence[Wanted]) -> tuple[list[_Row], list[BadRecord]]:
        types = await self._resources.types.ids({one.job.type for one in wanted})
        now = self._resources.clock.now()
        rows: list[_Row] = []
        bad: list[BadRecord] = []
        for one, job_id in zip(wanted, self._resources.ids.mint_many(len(wanted)), strict=True):
            queue = one.job.queue
            try:
                number = DEFAULT_QUEUE_ID if queue is None else await queue_id(self._resources, queue)
            except (ProblemError, TooManyQueuesError, BrokerUnavailableError) as error:
                # A new queue that Kafka refuses its topics must not hold up everybody's records behind it.
                bad.append((one.record, problem_of(error)))
                continue
            row = submission(
                one.tenant_id, job_id, one.job, type_id=types[one.job.type], queue_id=number, trace=one.trace, now=now
            )
            rows.append((one, row))
        return rows, bad

    async def _reject(self, bad: Sequence[BadRecord]) -> None:
        """Copy bad records for people to see, and wait until Kafka has them."""
        bad = [one for one in bad if id(one[0]) not in self._rejected]
        if not bad:
            return
        copies = [_copy(record, why) for record, why in bad]
        await self._resources.producer.send(self._rejected_topic, copies)
        self._rejected.update(id(record) for record, _ in bad)
        log.warning("intake_rejected", records=len(bad), codes=sorted({why.code for _, why in bad}))
        limited = sum(why.code == RateLimitedError.code for _, why in bad)
        _LIMITED.inc(limited)
        _REJECTED.inc(len(bad) - limited)

    async def _begin_again(self, consumer: Consumer) -> None:
        """Read on where Postgres is: someone else has stored what we were at."""
        held = sorted(at for at in consumer.assignment if at.topic == self._topic)
        for at, offset in (await self.start_offsets(held)).items():
            consumer.seek(at, offset)


async def _until_done(step: Callable[[], Awaitable[None]], records: int, stop: Stop) -> None:
    """Take a step again while it can't be done now; the stop ends that."""
    failures = 0
    while not stop.is_set():
        try:
            await step()
            return
        except TransientError as error:
            failures += 1
            log.warning("intake_postponed", code=error.code, reason=str(error), records=records)
            await stop.wait(retry_pause(_RETRY_SECONDS, failures, jitter=random.random()))


async def _accept(session: Session, rows: Sequence[_Row]) -> Accepted:
    """One call for those with and without an idempotency key: locks are taken in one order, and lines keep theirs."""
    jobs = [row for _, row in rows]
    if all(one.key is None for one, _ in rows):
        accepted = await accept_jobs(session, jobs, told=[])
    else:
        keys = [None if one.key is None else (one.key, one.fingerprint) for one, _ in rows]
        accepted = await accept_keyed_jobs(session, jobs, keys)
    if not accepted.marks and not accepted.holders:
        return accepted
    bad: list[BadRecord] = []
    for place, (one, row) in enumerate(rows):
        if (limited := accepted.error_of(row, place)) is not None:
            bad.append((one.record, problem_of(limited)))
        elif one.key is not None:
            holder = accepted.holders[place]
            if holder is None:
                raise DatabaseUnavailableError("a key was cleaned away at this moment")
            if holder.fingerprint != one.fingerprint:
                bad.append((one.record, _KEY_REUSED))
    if bad:
        raise _UnwantedError(bad)
    return accepted


def _ends(records: Sequence[ConsumedRecord]) -> dict[int, int]:
    """The offset behind the last of these records, by partition."""
    return {record.partition: record.offset + 1 for record in records}


def _copy(record: ConsumedRecord, why: Problem) -> OutgoingRecord:
    """With as much of it as there is room for beside the problem: a record that can't be copied must not stop its
    partition. First its value is left out, then its headers, then its key."""
    whole = rejected_headers(record, why)
    ways: tuple[_Copy, ...] = (
        (record.key, record.value, whole),
        (record.key, None, whole),
        (record.key, None, whole[-1:]),
        (None, None, whole[-1:]),
    )
    left_out = 0
    while _size(ways[left_out]) > _COPY_BYTES_MAX:
        left_out += 1
    if left_out:
        parts = ("value", "headers", "key")[:left_out]
        log.warning("intake_rejected_in_part", partition=record.partition, offset=record.offset, left_out=parts)
    return ways[left_out]


def _size(copy: _Copy) -> int:
    key, value, headers = copy
    # Two lengths of up to five bytes stand before a header.
    in_headers = sum([10 + len(name.encode()) + len(content or b"") for name, content in headers])
    return len(key or b"") + len(value or b"") + in_headers
