"""Reads the final state of a real system: its rows, by a login that sees all tenants, and its topics to their ends.

To be read when nothing moves any more: what changes meanwhile looks like a broken promise.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import confluent_kafka
import msgspec

from barnabas.client.api import AsyncClient
from barnabas.contract import topics
from barnabas.contract.deliveries import DeadDelivery
from barnabas.contract.events import JobEvent
from barnabas.contract.http import PAGE_LIMIT_MAX
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.deliveries import DeliveryState
from barnabas.domain.jobs import JobState
from barnabas.kafka.client_settings import common
from tests.chaos.final import (
    AttemptRow,
    DeadDeliveryRecord,
    DeadLetterRow,
    DeliveryRow,
    EndedJob,
    EndpointRow,
    EventRecord,
    Final,
    GateRow,
    KeyRow,
    OpenJob,
    PartitionRead,
    RedriveRow,
)
from tests.support.eventually import eventually

T = TypeVar("T")

LEFT = ("outbox", "lease_batches", "timers", "waiting", "backlogs", "cancel_requests", "ordering", "ordering_keys")
"""Tables that are empty once nothing moves, jobs and deliveries aside."""

_READ_SECONDS = 120.0
_MOST_RECORDS = 5_000
_DEAD_LETTER_KINDS = {1: "job", 2: "delivery"}
_GATE_KINDS = {1: "tenant", 2: "type", 3: "submissions"}

_OPEN = """SELECT tenant_id::text, job_id::text, state, attempt, fence, losses, job_types.name
             FROM jobs LEFT JOIN job_types USING (type_id)"""
_ENDED = """SELECT tenant_id::text, job_id::text, state, attempt, fence, event_id::text, result,
                   extract(epoch FROM started_at)::float8, extract(epoch FROM finished_at)::float8, losses, reason,
                   worker_id IS NOT NULL, job_types.name
              FROM job_results LEFT JOIN job_types USING (type_id)"""
_ATTEMPTS = """SELECT tenant_id::text, job_id::text, attempt, fence, kind, extract(epoch FROM started_at)::float8,
                      extract(epoch FROM finished_at)::float8, extract(epoch FROM next_at)::float8
                 FROM job_attempts"""
_ENDPOINTS = """SELECT tenant_id::text, endpoint_id::text, extract(epoch FROM created_at)::float8, event_types,
                       extract(epoch FROM LEAST(disabled_at, deleted_at))::float8
                  FROM endpoints"""
_DELIVERIES = """SELECT tenant_id::text, event_id::text, endpoint_id::text, job_id::text, state, attempt, fence,
                        extract(epoch FROM finished_at)::float8, last_status, delivery_id::text
                   FROM deliveries"""
_GATES = """SELECT tenant_id::text, kind, job_types.name, used, allowed
              FROM gates LEFT JOIN job_types USING (type_id)"""
# Its writer forgets an outbox row when Kafka has the event, and the notifier may not have read it by then.
_UNTOLD = f"""SELECT count(*)
                FROM job_results AS ended
                JOIN endpoints AS endpoint ON endpoint.tenant_id = ended.tenant_id
               WHERE endpoint.created_at <= ended.finished_at
                 AND endpoint.disabled_at IS NULL
                 AND endpoint.deleted_at IS NULL
                 AND (endpoint.event_types IS NULL
                      OR CASE ended.state WHEN {JobState.SUCCEEDED.value} THEN 'job.succeeded'
                         WHEN {JobState.FAILED.value} THEN 'job.failed' ELSE 'job.cancelled' END
                         = ANY (endpoint.event_types))
                 AND NOT EXISTS (SELECT 1 FROM deliveries AS delivery
                                  WHERE delivery.tenant_id = ended.tenant_id AND delivery.event_id = ended.event_id
                                    AND delivery.endpoint_id = endpoint.endpoint_id)"""


async def read_final(
    connection: Any, kafka_bootstrap: str | None, *, counted: Mapping[str, int] | None = None
) -> Final:
    """Everything that is there now. `connection` is asyncpg's, of the engine's login.

    Without a bootstrap address no topic is read. `counted` is how many jobs the product itself tells of, by state.
    """
    to_ledger = await _clock(connection)
    records = _Records([], [], [], [])
    if kafka_bootstrap is not None:
        records = await asyncio.to_thread(_read_topics, kafka_bootstrap, to_ledger)
    unread = kafka_bootstrap is None
    return Final(
        open=[
            OpenJob(tenant, job, JobState(state).label, attempt, fence, losses, kind or "")
            for tenant, job, state, attempt, fence, losses, kind in await connection.fetch(_OPEN)
        ],
        ended=[_ended(row, to_ledger) for row in await connection.fetch(_ENDED)],
        attempts=[_attempt(row, to_ledger) for row in await connection.fetch(_ATTEMPTS)],
        keys=[
            KeyRow(*row)
            for row in await connection.fetch("SELECT tenant_id::text, key, job_id::text FROM idempotency_keys")
        ],
        redrives=[
            RedriveRow(*row)
            for row in await connection.fetch("SELECT tenant_id::text, redrive_of::text, job_id::text FROM redrives")
        ],
        endpoints=[
            EndpointRow(
                tenant,
                endpoint,
                to_ledger(created_at) or 0.0,
                None if types is None else tuple(types),
                to_ledger(until),
            )
            for tenant, endpoint, created_at, types, until in await connection.fetch(_ENDPOINTS)
        ],
        deliveries=[_delivery(row, to_ledger) for row in await connection.fetch(_DELIVERIES)],
        dead_letters=[
            DeadLetterRow(tenant, _DEAD_LETTER_KINDS[kind], ref, reason)
            for tenant, kind, ref, reason in await connection.fetch(
                "SELECT tenant_id::text, kind, ref::text, reason FROM dead_letters"
            )
        ],
        gates=[
            GateRow(tenant, _GATE_KINDS[kind], name or "", used, allowed)
            for tenant, kind, name, used, allowed in await connection.fetch(_GATES)
        ],
        events=None if unread else records.events,
        dead_jobs=None if unread else records.dead_jobs,
        dead_deliveries=None if unread else records.dead_deliveries,
        partitions=records.partitions,
        left={table: count for table, count in (await count_left(connection)).items() if table in LEFT},
        counted=dict(counted or {}),
    )


async def count_left(connection: Any) -> dict[str, int]:
    """What still has to move, by table, and events that are still to reach an endpoint: all zero when nothing does."""
    parts = [f"(SELECT count(*) FROM {table}) AS {table}" for table in ("jobs", *LEFT)]
    row = await connection.fetchrow(
        f"SELECT {', '.join(parts)}, (SELECT count(*) FROM deliveries WHERE state < 4) AS deliveries,"
        f" ({_UNTOLD}) AS untold"
    )
    return dict(row)


async def count_told(clients: Iterable[AsyncClient]) -> dict[str, int]:
    """How many jobs the product tells these tenants of, page by page, by state."""
    told = {state.label: 0 for state in JobState}
    for client in clients:
        async for job in client.list(limit=PAGE_LIMIT_MAX):
            told[job.status] += 1
    return told


async def until_quiet(connection: Any, timeout: float) -> None:
    """Wait until nothing is open, told of or held any more; fails with what is left after `timeout` seconds."""
    await eventually(lambda: count_left(connection), until=lambda left: not any(left.values()), timeout=timeout)


Clock = Callable[[float | None], float | None]


async def _clock(connection: Any) -> Clock:
    """From seconds of the database's clock to those of the ledger's."""
    best_seconds, offset = float("inf"), 0.0
    # The quickest of a few answers tells the difference best.
    for _ in range(5):
        before = time.monotonic()
        there: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        after = time.monotonic()
        if after - before < best_seconds:
            best_seconds, offset = after - before, there - (before + after) / 2
    return lambda at: None if at is None else at - offset


class _Ran(msgspec.Struct):
    run: str | None = None


_ran = msgspec.json.Decoder(_Ran)


def result_hash(result: bytes | None) -> str:
    """What the ledger's handlers call their result: its run, or a hash of any other's bytes."""
    if result is None:
        return ""
    try:
        run = _ran.decode(result).run
    except msgspec.MsgspecError:
        run = None
    return hashlib.sha256(result).hexdigest()[:32] if run is None else run


def _ended(row: Any, to_ledger: Clock) -> EndedJob:
    tenant, job, state, attempt, fence, event_id, result, started_at, finished_at, losses, reason, held, kind = row
    return EndedJob(
        tenant,
        job,
        JobState(state).label,
        attempt,
        fence,
        event_id,
        result_hash(result),
        to_ledger(started_at),
        to_ledger(finished_at) or 0.0,
        losses,
        reason,
        held,
        kind or "",
    )


def _attempt(row: Any, to_ledger: Clock) -> AttemptRow:
    tenant, job, attempt, fence, kind, started_at, finished_at, next_at = row
    label = AttemptKind(kind).label
    return AttemptRow(
        tenant, job, attempt, fence, label, to_ledger(started_at), to_ledger(finished_at) or 0.0, to_ledger(next_at)
    )


def _delivery(row: Any, to_ledger: Clock) -> DeliveryRow:
    tenant, event_id, endpoint, job, state, attempt, fence, finished_at, last_status, delivery = row
    label = DeliveryState(state).label
    return DeliveryRow(
        tenant, event_id, endpoint, job, label, attempt, fence, to_ledger(finished_at), last_status, delivery
    )


@dataclass(frozen=True, slots=True)
class _Records:
    events: list[EventRecord]
    dead_jobs: list[EventRecord]
    dead_deliveries: list[DeadDeliveryRecord]
    partitions: list[PartitionRead]


def _read_topics(bootstrap: str, to_ledger: Clock) -> _Records:
    results, dead_jobs, dead_deliveries = topics.RESULTS.name, topics.JOBS_DLQ.name, topics.DELIVERIES_DLQ.name
    records = _Records([], [], [], [])
    consumer: Any = confluent_kafka.Consumer(
        common(bootstrap, "chaos-rows") | {"group.id": "chaos-rows", "enable.auto.commit": False}
    )
    try:
        for topic in (results, dead_jobs, dead_deliveries):
            ends = _ends(consumer, topic)
            counts = dict.fromkeys(ends, 0)
            for message in _messages(consumer, topic, ends):
                counts[message.partition()] += 1
                if topic == dead_deliveries:
                    records.dead_deliveries.append(_dead_delivery(message))
                else:
                    kept = records.events if topic == results else records.dead_jobs
                    kept.append(_event(message, to_ledger))
            records.partitions.extend(
                PartitionRead(topic, partition, low, high, counts[partition]) for partition, (low, high) in ends.items()
            )
    finally:
        consumer.close()
    return records


def _ends(consumer: Any, topic: str) -> dict[int, tuple[int, int]]:
    """Where each partition begins and where it ends now."""
    partitions = consumer.list_topics(topic, timeout=_READ_SECONDS).topics[topic].partitions
    return {
        partition: consumer.get_watermark_offsets(
            confluent_kafka.TopicPartition(topic, partition), timeout=_READ_SECONDS, cached=False
        )
        for partition in sorted(partitions)
    }


def _messages(consumer: Any, topic: str, ends: Mapping[int, tuple[int, int]]) -> Iterable[Any]:
    """All records between these offsets; fails when they don't come."""
    waiting = {partition for partition, (low, high) in ends.items() if low < high}
    consumer.assign([confluent_kafka.TopicPartition(topic, each, ends[each][0]) for each in sorted(waiting)])
    deadline = time.monotonic() + _READ_SECONDS
    while waiting:
        assert time.monotonic() < deadline, f"{topic} was not read to its end: {sorted(waiting)}"
        for message in consumer.consume(_MOST_RECORDS, timeout=1.0):
            # While a broker comes back there are errors in between; the deadline is the limit for them.
            if message.error() is None and message.offset() < ends[message.partition()][1]:
                yield message
        for place in consumer.position([confluent_kafka.TopicPartition(topic, each) for each in waiting]):
            if place.offset >= ends[place.partition][1]:
                waiting.discard(place.partition)
    consumer.unassign()


_events = msgspec.json.Decoder(JobEvent)
_dead = msgspec.json.Decoder(DeadDelivery)


def _event(message: Any, to_ledger: Clock) -> EventRecord:
    event = _events.decode(message.value())
    _, milliseconds = message.timestamp()
    return EventRecord(
        message.partition(),
        message.offset(),
        str(event.tenant_id),
        str(event.id),
        str(event.job_id),
        event.type,
        event.attempt,
        event.fence,
        event.reason,
        to_ledger(milliseconds / 1000),
    )


def _dead_delivery(message: Any) -> DeadDeliveryRecord:
    dead = _dead.decode(message.value())
    return DeadDeliveryRecord(
        message.partition(),
        message.offset(),
        str(dead.tenant_id),
        str(dead.event_id),
        str(dead.endpoint_id),
        str(dead.job_id),
    )
