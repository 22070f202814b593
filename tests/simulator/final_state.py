"""The model's final state in the checker's terms, and what of it isn't final yet."""

from collections import Counter
from uuid import UUID

import msgspec

from barnabas.contract import topics
from barnabas.contract.events import decode_event
from barnabas.domain.deliveries import DELIVERY_OPEN, DeliveryState
from barnabas.domain.gates import LineKind
from barnabas.domain.jobs import JobState
from barnabas.kafka.partitions import TopicPartition
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
    RedriveRow,
)
from tests.simulator.broker import PARTITIONS, ModelBroker
from tests.simulator.statements_deliveries import ModelStatements
from tests.simulator.tables import EPOCH, Result, Tables, seconds_of

_EPOCH_MS = EPOCH.timestamp() * 1_000
# Who must have read everything of which topic before all is over.
_READERS = {
    "barnabas.notifier": (topics.RESULTS.name, topics.DELIVERIES_RETRY.name),
}


def unfinished(tables: Tables, broker: ModelBroker) -> list[str]:
    """What will still move, in words; nothing when all is over."""
    found = [f"job {job.job} is {job.state.label}" for job in tables.jobs.values()]
    found += [
        f"delivery of event {key[1]} is {DeliveryState(one.state).label}"
        for key, one in tables.deliveries.items()
        if one.state in DELIVERY_OPEN
    ]
    found += [f"{count} rows are in {name}" for name, count in left_over(tables).items() if count]
    for group, names in _READERS.items():
        behind = sum(each.records for each in broker.lag(group, names))
        if behind:
            found.append(f"{group} has {behind} records to read")
    # The group's own offset is only for measuring lag: how far the intake is stored says the database.
    for number in range(PARTITIONS):
        stored = tables.intake.get((broker.topic_ids[topics.INTAKE.name], number), 0)
        behind = len(broker.logs[TopicPartition(topics.INTAKE.name, number)]) - stored
        if behind > 0:
            found.append(f"{behind} records of the intake aren't stored")
    # A wipe is made good when Postgres remembers the new topics: nobody has looked yet, or somebody is at it.
    if any(tables.kafka_topics.get(name) != ("model", topic_id) for name, topic_id in broker.topic_ids.items()):
        found.append("what wiped topics held isn't made good")
    return found


def left_over(tables: Tables) -> dict[str, int]:
    """Rows in tables that are empty when nothing moves."""
    return {
        "outbox": len(tables.outbox),
        "timers": len(tables.timers),
        "waiting": len(tables.waiting),
        "backlogs": len(tables.backlogs),
        "lease_batches": len(tables.batches),
        "cancel_requests": len(tables.cancels),
    }


def final_of(statements: ModelStatements, broker: ModelBroker) -> Final:
    """Everything that is there."""
    tables, name_of = statements.tables, statements.type_name
    return Final(
        open=[
            OpenJob(
                str(job.tenant), str(job.job), job.state.label, job.attempt, job.fence, job.losses, name_of(job.type_id)
            )
            for job in tables.jobs.values()
        ],
        ended=[_ended(one, name_of(one.type_id)) for results in tables.results.values() for one in results],
        attempts=[
            AttemptRow(
                str(one.tenant), str(one.job), one.attempt, one.fence, one.kind.label,
                None if one.started_at is None else seconds_of(one.started_at), seconds_of(one.finished_at),
                None if one.next_at is None else seconds_of(one.next_at),
            )
            for one in tables.attempts.values()
        ],
        keys=[KeyRow(str(tenant), key, str(held.job)) for (tenant, key), held in tables.keys.items()],
        redrives=[RedriveRow(str(tenant), str(dead), str(job)) for (tenant, dead), job in tables.redrives.items()],
        endpoints=[
            EndpointRow(
                str(one.tenant), str(one.endpoint), one.created_at, one.event_types,
                None if one.disabled_at is None else seconds_of(one.disabled_at),
            )
            for one in tables.endpoints.values()
        ],
        deliveries=[
            DeliveryRow(
                str(key[0]), str(key[1]), str(key[2]), str(one.job), DeliveryState(one.state).label, one.attempt,
                one.fence, None if one.finished_at is None else seconds_of(one.finished_at), one.last_status,
                str(one.delivery),
            )
            for key, one in tables.deliveries.items()
        ],
        dead_letters=[
            DeadLetterRow(str(tenant), "job" if kind == 1 else "delivery", str(ref), one.reason)
            for (tenant, kind, ref), one in tables.dead.items()
        ],
        gates=[
            GateRow(
                str(tenant), "tenant" if kind is LineKind.TENANT else "type",
                "" if kind is LineKind.TENANT else name_of(type_id), scope.gate.used, scope.gate.allowed,
            )
            for (tenant, kind, type_id), scope in tables.gates.items()
        ],
        events=_events(broker, topics.RESULTS.name),
        dead_jobs=_events(broker, topics.JOBS_DLQ.name),
        dead_deliveries=_dead_deliveries(broker),
        left=left_over(tables),
        counted=_counted(tables),
    )  # fmt: skip


def _ended(one: Result, type_name: str) -> EndedJob:
    result = "" if one.result is None else msgspec.json.decode(one.result)["token"]
    return EndedJob(
        str(one.tenant), str(one.job), one.state.label, one.attempt, one.fence, str(one.event), result,
        None if one.started_at is None else seconds_of(one.started_at), seconds_of(one.finished_at), one.losses,
        one.reason, one.worker is not None, type_name,
    )  # fmt: skip


def _events(broker: ModelBroker, topic: str) -> list[EventRecord]:
    events = []
    for partition, offset, record in broker.records(topic):
        event = decode_event(record.value)
        events.append(
            EventRecord(
                partition, offset, str(event.tenant_id), str(event.id), str(event.job_id), event.type, event.attempt,
                event.fence, event.reason, (record.timestamp_ms - _EPOCH_MS) / 1_000,
            )
        )  # fmt: skip
    return events


def _dead_deliveries(broker: ModelBroker) -> list[DeadDeliveryRecord]:
    records = []
    for partition, offset, record in broker.records(topics.DELIVERIES_DLQ.name):
        told = msgspec.json.decode(record.value or b"")
        places = [str(UUID(told[name])) for name in ("tenant_id", "event_id", "endpoint_id", "job_id")]
        records.append(DeadDeliveryRecord(partition, offset, *places))
    return records


def _counted(tables: Tables) -> dict[str, int]:
    states = Counter(job.state for job in tables.jobs.values())
    return {state.label: states[state] for state in JobState if state < JobState.SUCCEEDED}
