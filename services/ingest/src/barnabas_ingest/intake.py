"""The intake topic: what producers write to Kafka directly becomes jobs by the same step as what comes by HTTP.

How far a partition has been stored is moved in the transaction that stores its records, from the value that was read to
the next: a record is one job whatever crashes, and whoever lost the partition writes nothing. Kafka's own offset is
only for measuring lag. A bad record is copied to the rejected topic before the partition moves past it.
"""

import random
from collections.abc import Mapping, Sequence

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
from barnabas.postgres.submissions import (
    IntakeMovedError,
    Submission,
    UnstorableError,
    accept_jobs,
    accept_keyed_jobs,
    move_intake_offsets,
    read_intake_offsets,
)
from barnabas.runtime import metrics
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas_ingest.flush import made_jobs, ready_records
from barnabas_ingest.intake_record import Wanted, read_record, rejected_headers
from barnabas_ingest.lane import FLUSH_JOBS_MAX
from barnabas_ingest.resources import Resources
from barnabas_ingest.submit import submission

log = structlog.get_logger(__name__)

GROUP = "barnabas.ingest"
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 0.2

_ACCEPTED = metrics.submissions.labels("kafka", "accepted")
_REPLAYED = metrics.submissions.labels("kafka", "replayed")
_REJECTED = metrics.submissions.labels("kafka", "rejected")
_SUPERSEDED = metrics.superseded_writes.labels("intake")
_ROWS = metrics.flush_rows.labels("intake")
_SECONDS = metrics.flush_seconds.labels("intake")


_KEY_REUSED = problem("idempotency_key_reused", "the key belongs to a job with another body")
# The topic's limit for a record, less room for its key and the problem.
_COPY_BYTES_MAX = topics.RECORD_BYTES_MAX - 8_192

_Told = tuple[int | None, list[Submission]]
"""An outbox row and the jobs it is about."""


class _KeysTakenError(Exception):
    """Idempotency keys of these records belong to other bodies: they are bad, and the rest goes without them."""

    def __init__(self, records: Sequence[ConsumedRecord]) -> None:
        super().__init__()
        self.records = records


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
        """Take batches and store them, one flush after the other."""
        while not stop.is_set():
            records = await consumer.get(FLUSH_JOBS_MAX, _POLL_SECONDS)
            now = self._resources.clock.monotonic()
            self._arrivals.add(len(records), now=now)
            hold = hold_seconds(self._arrivals.rate(now=now))
            if records and len(records) < FLUSH_JOBS_MAX and hold and not await stop.wait(hold):
                records += await consumer.get(FLUSH_JOBS_MAX - len(records), 0)
            failures = 0
            while records and not stop.is_set():
                try:
                    await self.store(consumer, records)
                    break
                except IntakeMovedError:
                    _SUPERSEDED.inc(len(records))
                    await self._begin_again(consumer)
                    break
                except TransientError as error:
                    failures += 1
                    log.warning("intake_postponed", code=error.code, reason=str(error), records=len(records))
                    await stop.wait(retry_pause(_RETRY_SECONDS, failures, jitter=random.random()))

    async def store(self, consumer: Consumer, records: Sequence[ConsumedRecord]) -> None:
        """Store a batch: every record becomes one job or one rejected record, and its partition moves past it.

        Raises `IntakeMovedError` when someone newer has stored them, and a `TransientError` when it may work later:
        then nothing of what is left has been stored.
        """
        wanted: list[Wanted] = []
        bad: list[tuple[ConsumedRecord, Problem]] = []
        fresh = [
            record
            for record in records
            if consumer.is_current(record) and record.offset >= self._stored.get(record.partition, 0)
        ]
        now = self._resources.clock.now()
        for record in fresh:
            try:
                wanted.append(await read_record(record, self._resources.credentials, now=now))
            except ProblemError as error:
                bad.append((record, error.problem))
        await self._reject(bad)
        await self._store(fresh, wanted)
        consumer.commit({TopicPartition(self._topic, partition): offset for partition, offset in _ends(fresh).items()})

    async def _store(self, records: Sequence[ConsumedRecord], wanted: Sequence[Wanted]) -> None:
        """One transaction, in halves where Postgres refuses a row, without those whose key is taken."""
        if not records:
            return
        started = self._resources.clock.monotonic()
        ends = _ends(records)
        moves = {partition: (self._stored.get(partition, 0), end) for partition, end in ends.items()}
        plain, keyed = await self._rows(wanted)

        async def step(session: Session) -> tuple[list[_Told], int]:
            await move_intake_offsets(session, self._topic_id, moves)
            told: list[_Told] = []
            if plain:
                told.append((await accept_jobs(session, plain, told=[]), plain))
            made: list[Submission] = []
            if keyed:
                outbox_id, made = await _accept_keyed(session, keyed)
                told.append((outbox_id, made))
            return told, len(made)

        try:
            told, made = await self._resources.database.run(step)
        except _KeysTakenError as error:
            await self._reject([(record, _KEY_REUSED) for record in error.records])
            taken = {id(record) for record in error.records}
            await self._store(records, [one for one in wanted if id(one.record) not in taken])
            return
        except UnstorableError as error:
            if len(records) == 1:
                await self._reject([(records[0], problem_of(error))])
                await self._store(records, [])
                return
            middle = len(records) // 2
            for half in (records[:middle], records[middle:]):
                some = {id(record) for record in half}
                await self._store(half, [one for one in wanted if id(one.record) in some])
            return
        self._stored.update(ends)
        for outbox_id, jobs in told:
            if outbox_id is not None:
                self._resources.teller.tell(outbox_id, ready_records(jobs))
        _ACCEPTED.inc(len(plain) + made)
        _REPLAYED.inc(len(keyed) - made)
        _ROWS.observe(len(records))
        _SECONDS.observe(self._resources.clock.monotonic() - started)

    async def _rows(self, wanted: Sequence[Wanted]) -> tuple[list[Submission], list[tuple[Wanted, Submission]]]:
        types = await self._resources.types.ids({one.job.type for one in wanted})
        now = self._resources.clock.now()
        plain: list[Submission] = []
        keyed: list[tuple[Wanted, Submission]] = []
        for one, job_id in zip(wanted, self._resources.ids.mint_many(len(wanted)), strict=True):
            row = submission(
                one.tenant_id, job_id, one.job, type_id=types[one.job.type], trace=one.trace, now=now
            )._replace(priority=one.priority)
            if one.key is None:
                plain.append(row)
            else:
                keyed.append((one, row))
        return plain, keyed

    async def _reject(self, bad: Sequence[tuple[ConsumedRecord, Problem]]) -> None:
        """Copy bad records for people to see, and wait until Kafka has them."""
        if not bad:
            return
        log.warning("intake_rejected", records=len(bad), codes=sorted({problem.code for _, problem in bad}))
        _REJECTED.inc(len(bad))
        await self._resources.producer.send(
            self._rejected_topic,
            [_copy(record, problem) for record, problem in bad],
        )

    async def _begin_again(self, consumer: Consumer) -> None:
        """Read on where Postgres is: someone else has stored what we were at."""
        held = sorted(at for at in consumer.assignment if at.topic == self._topic)
        for at, offset in (await self.start_offsets(held)).items():
            consumer.seek(at, offset)


async def _accept_keyed(
    session: Session, keyed: Sequence[tuple[Wanted, Submission]]
) -> tuple[int | None, list[Submission]]:
    jobs = [row for _, row in keyed]
    holders, outbox_id = await accept_keyed_jobs(
        session, jobs, [one.key or "" for one, _ in keyed], [one.fingerprint for one, _ in keyed]
    )
    if None in holders:
        raise DatabaseUnavailableError("a key was cleaned away at this moment")
    taken = [
        one.record
        for (one, _), holder in zip(keyed, holders, strict=True)
        if holder is not None and holder.fingerprint != one.fingerprint
    ]
    if taken:
        raise _KeysTakenError(taken)
    return outbox_id, made_jobs(jobs, holders)


def _ends(records: Sequence[ConsumedRecord]) -> dict[int, int]:
    """The offset behind the last of these records, by partition."""
    return {record.partition: record.offset + 1 for record in records}


def _copy(record: ConsumedRecord, why: Problem) -> OutgoingRecord:
    headers = rejected_headers(record, why)
    size = len(record.value or b"") + sum(len(name) + len(value or b"") for name, value in headers)
    if size > _COPY_BYTES_MAX:
        # It fitted without the problem beside it; a record that can't be copied must not stop its partition.
        log.warning("intake_rejected_without_value", partition=record.partition, offset=record.offset, size_bytes=size)
        return record.key, None, headers
    return record.key, record.value, headers
