"""The intake topic: one job for each record whatever crashes, and bad records put aside as they came."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from barnabas.contract import topics
from barnabas.contract.topics import Topic
from barnabas.errors import BrokerUnavailableError, DatabaseUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord
from barnabas.kafka.producer import OutgoingRecord
from barnabas.runtime import crash_points
from barnabas.runtime.crash_points import CrashPoint
from barnabas.runtime.stop import Stop
from barnabas_ingest.intake import Intake
from barnabas_ingest.intake_record import read_records
from tests.integration.ingest.support import Caller, RunningIngest
from tests.support.eventually import at_last, eventually
from tests.support.raw_headers import produce_raw
from tests.support.topics import TopicReader
from tests.support.world import World


@pytest.fixture(scope="module")
async def admin(module_world: World) -> AsyncIterator[Admin]:
    async with Admin(module_world.kafka) as opened:
        yield opened


@pytest.fixture
async def topic(admin: Admin) -> str:
    """An intake topic of one's own, with two partitions."""
    made = Topic(f"barnabas.intake.test-{uuid.uuid4().hex}", "tenant", 3_600_000, partitions=2)
    await admin.ensure_topics(topics=[made])
    return made.name


class Member:
    """One running reader of the topic."""

    def __init__(self, ingest: RunningIngest, admin: Admin, topic: str, group: str) -> None:
        assert ingest.resources is not None
        self.intake = Intake(ingest.resources, admin, topic=topic)
        self.consumer: Consumer = self.intake.consumer(group)
        self.stop = Stop()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Member"]:
        async with self.consumer:
            task = asyncio.create_task(self.intake.run(self.consumer, self.stop))
            try:
                yield self
            finally:
                self.stop.set()
                await task


async def _send(world: World, topic: str, tenant: Caller, bodies: Sequence[Any], **headers: str) -> None:
    sent = [("authorization", f"Bearer {tenant.key}".encode())]
    sent += [(name.replace("_", "-"), value.encode()) for name, value in headers.items()]
    values = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    await world.producer.send(topic, [(str(tenant.tenant_id).encode(), value, sent) for value in values])


async def _payloads(world: World, tenant: Caller) -> list[Any]:
    rows = await world.superuser.fetch(
        "SELECT payload FROM job_payloads WHERE tenant_id = $1 ORDER BY job_id", tenant.tenant_id
    )
    return [json.loads(row["payload"]) for row in rows]


def _jobs(count: int) -> list[dict[str, Any]]:
    return [{"type": "echo", "payload": number} for number in range(count)]


async def test_records_become_jobs_in_their_order(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    await _send(module_world, topic, tenant, _jobs(1_200))

    async with Member(ingest, admin, topic, topic).running():
        await eventually(lambda: _payloads(module_world, tenant), until=lambda found: len(found) >= 1_200)

    assert await _payloads(module_world, tenant) == list(range(1_200))


async def test_headers_say_priority_key_and_trace(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await _send(module_world, topic, tenant, _jobs(1), priority="critical", traceparent=trace)
    for _ in range(3):
        await _send(module_world, topic, tenant, [{"type": "echo", "payload": "keyed"}], idempotency_key="once")

    async with Member(ingest, admin, topic, topic).running():
        await _stored(module_world, admin, topic, 4)

    rows = await module_world.superuser.fetch(
        "SELECT payload, priority, trace FROM job_payloads WHERE tenant_id = $1 ORDER BY job_id", tenant.tenant_id
    )
    assert [(row["payload"], row["priority"], row["trace"]) for row in rows] == [
        (b"0", 3, trace.encode()),
        (b'"keyed"', 1, None),
    ]


async def _stored(world: World, admin: Admin, topic: str, records: int) -> None:
    """Wait until so many records of the topic are behind its offsets."""
    _, ids = await admin.topic_ids([topic])

    async def sum_of_offsets() -> int:
        return int(
            await world.superuser.fetchval(
                "SELECT COALESCE(sum(next_offset), 0) FROM intake_offsets WHERE topic_id = $1", ids[topic]
            )
        )

    await eventually(sum_of_offsets, until=lambda total: total >= records)


async def test_a_record_is_one_job_though_kafkas_offset_was_never_moved(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    # A crash between the commit in Postgres and the one in Kafka leaves Kafka's offset behind; so does another group.
    await _send(module_world, topic, tenant, _jobs(50))
    async with Member(ingest, admin, topic, f"{topic}-first").running():
        await _stored(module_world, admin, topic, 50)

    await _send(module_world, topic, tenant, [{"type": "echo", "payload": "last"}])
    async with Member(ingest, admin, topic, f"{topic}-second").running():
        await _stored(module_world, admin, topic, 51)

    assert await _payloads(module_world, tenant) == [*range(50), "last"]


async def test_a_member_that_lost_its_partition_stores_nothing_of_it(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    # Two members that both believe they own every partition: two groups, over the same offsets in Postgres.
    async with (
        Member(ingest, admin, topic, f"{topic}-one").running() as one,
        Member(ingest, admin, topic, f"{topic}-two").running() as two,
    ):
        await eventually(lambda: len(one.consumer.assignment) == 2 and len(two.consumer.assignment) == 2)
        for begin in range(0, 300, 10):
            await _send(module_world, topic, tenant, [{"type": "echo", "payload": begin + n} for n in range(10)])
        await _stored(module_world, admin, topic, 300)

    assert sorted(await _payloads(module_world, tenant)) == list(range(300))


async def test_a_topic_that_was_made_again_is_read_from_its_beginning(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    await _send(module_world, topic, tenant, _jobs(20))
    async with Member(ingest, admin, topic, f"{topic}-before").running():
        await _stored(module_world, admin, topic, 20)
    _, before = await admin.topic_ids([topic])
    await admin.delete_topics([topic])

    async def make() -> bool:
        try:
            await admin.ensure_topics(topics=[Topic(topic, "tenant", 3_600_000, partitions=2)])
            _, ids = await admin.topic_ids([topic])
        except BrokerUnavailableError:
            return False
        # The broker may go on for a moment to list what it has deleted.
        return ids.get(topic, before[topic]) != before[topic]

    await eventually(make)

    anew = [{"type": "echo", "payload": "anew"}]
    await at_last(lambda: _send(module_world, topic, tenant, anew), refused=BrokerUnavailableError)
    async with Member(ingest, admin, topic, f"{topic}-after").running():
        await eventually(lambda: _payloads(module_world, tenant), until=lambda found: "anew" in found)


async def test_a_bad_record_is_put_aside_byte_for_byte_but_for_its_credential(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    key = str(tenant.tenant_id).encode()
    value = b'\x00\xff{"type":"echo" '
    headers = [
        ("Authorization", f"Bearer {tenant.key}".encode()),
        ("x-trace", b"\x00\x01\xfe"),
        ("x-trace", b"twice"),
        ("empty", b""),
    ]
    async with TopicReader(module_world.kafka, topics.INTAKE_REJECTED.name) as rejected:
        await module_world.producer.send(topic, [(key, value, headers)])
        await _send(module_world, topic, tenant, [{"type": "echo", "payload": "behind it"}])
        async with Member(ingest, admin, topic, topic).running():
            copy = await rejected.until(lambda each: each.key == key)
            await eventually(lambda: _payloads(module_world, tenant), until=lambda found: found == ["behind it"])

    assert (copy.key, copy.value) == (key, value)
    assert list(copy.headers[:-1]) == headers[1:]
    name, problem = copy.headers[-1]
    assert name == "barnabas-problem"
    assert json.loads(problem or b"")["code"] == "malformed_json"


async def test_every_kind_of_bad_record_is_rejected_and_stops_nothing(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    other = await ingest.tenant()
    key = str(tenant.tenant_id).encode()
    mark = uuid.uuid4().hex.encode()
    good = b'{"type":"echo","payload":1}'
    known = ("authorization", f"{tenant.key}".encode())
    records: list[tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
        ("unauthorized", key, good, []),
        ("unauthorized", key, good, [("authorization", b"Bearer nonsense")]),
        ("malformed_record", None, good, [known]),
        ("wrong_tenant", str(other.tenant_id).encode(), good, [known]),
        ("wrong_tenant", key.upper(), good, [known]),
        ("malformed_record", key, None, [known]),
        ("malformed_record", key, good, [known, known]),
        ("malformed_json", key, b"", [known]),
        ("validation_failed", key, b'{"type":"echo"}', [known]),
        ("validation_failed", key, b'{"type":"echo","payload":1,"schema":9}', [known]),
        ("validation_failed", key, b'{"type":"echo","payload":1,"run_at":"3026-01-01T00:00:00Z"}', [known]),
        ("validation_failed", key, good, [known, ("priority", b"urgent")]),
        ("validation_failed", key, good, [known, ("priority", b"9")]),
        ("validation_failed", key, good, [known, ("priority", b"1" * 5_000)]),
        ("validation_failed", key, good, [known, ("idempotency-key", b"\n")]),
        ("validation_failed", key, b'{"type":"echo","payload":1e999}', [known, ("idempotency-key", b"huge")]),
    ]
    await _send(module_world, topic, tenant, [{"type": "echo", "payload": 1}], idempotency_key="mine")
    async with TopicReader(module_world.kafka, topics.INTAKE_REJECTED.name) as rejected:
        for number, (code, record_key, value, headers) in enumerate(records):
            more = [("mark", mark), ("number", str(number).encode()), ("is", code.encode())]
            await module_world.producer.send(topic, [(record_key, value, [*headers, *more])])
        await _send(
            module_world, topic, tenant, [{"type": "echo", "payload": 2}], idempotency_key="mine", mark=mark.decode(),
            number=str(len(records)), **{"is": "idempotency_key_reused"},
        )  # fmt: skip
        await _send(module_world, topic, tenant, [{"type": "echo", "payload": "last"}])
        async with Member(ingest, admin, topic, topic).running():
            await _stored(module_world, admin, topic, len(records) + 3)

        def ours() -> dict[bytes, dict[str, bytes]]:
            # By number: a record is rejected at least once, and a copy of it may be read twice.
            found = [{name: value or b"" for name, value in record.headers} for record in rejected.records]
            return {headers["number"]: headers for headers in found if headers.get("mark") == mark}

        copies = list((await eventually(ours, until=lambda found: len(found) == len(records) + 1)).values())

    assert [json.loads(headers["barnabas-problem"])["code"] for headers in copies] == [
        headers["is"].decode() for headers in copies
    ]
    assert sorted(headers["is"].decode() for headers in copies) == sorted(
        [code for code, *_ in records] + ["idempotency_key_reused"]
    )
    assert all("authorization" not in headers for headers in copies)
    assert await _payloads(module_world, tenant) == [1, "last"]
    assert (await other.get("/v1/jobs")).body["items"] == []


@pytest.mark.parametrize("huge", ["field", "header", "key"])
async def test_a_bad_record_is_put_aside_however_large_it_is(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, huge: str
) -> None:
    made = Topic(
        f"barnabas.intake.test-{uuid.uuid4().hex}", "tenant", 3_600_000, 2, record_bytes_max=topics.RECORD_BYTES_MAX
    )
    await admin.ensure_topics(topics=[made])
    # Nothing that compresses: the copy's limit holds for what is sent.
    text, most = os.urandom(375_000).hex().encode(), os.urandom(topics.RECORD_BYTES_MAX - 300)
    mark, key = uuid.uuid4().bytes, str(tenant.tenant_id).encode()
    known = ("authorization", f"{tenant.key}".encode())
    records: dict[str, OutgoingRecord] = {
        "field": (key, b'{"type":"echo","payload":1,"%b":1}' % text, [known, ("mark", mark)]),
        "header": (key, b"", [("mark", mark), ("huge", most)]),
        "key": (most, b"", [("mark", mark)]),
    }
    async with TopicReader(module_world.kafka, topics.INTAKE_REJECTED.name) as rejected:
        await module_world.producer.send(made.name, [records[huge]])
        async with Member(ingest, admin, made.name, made.name).running():
            await _stored(module_world, admin, made.name, 1)
        code = {"field": "validation_failed", "header": "unauthorized", "key": "unauthorized"}[huge]

        copy = await rejected.until(lambda each: each.key == key or (huge == "key" and each.key is each.value is None))
    problem = dict(copy.headers)["barnabas-problem"] or b""

    assert len(problem) < 1_500
    assert json.loads(problem)["code"] == code
    # What there is room for is kept.
    assert (copy.key, copy.value) == ((None if huge == "key" else key), (records[huge][1] if huge == "field" else None))


async def test_a_header_whose_name_is_no_text_costs_its_record_alone(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    key, value = str(tenant.tenant_id).encode(), uuid.uuid4().hex.encode()
    headers = [(b"authorization", f"{tenant.key}".encode()), (b"\xff\xfe", b"1")]
    async with TopicReader(module_world.kafka, topics.INTAKE_REJECTED.name) as rejected:
        await asyncio.to_thread(produce_raw, module_world.kafka, topic, key, value, headers)
        await _send(module_world, topic, tenant, [{"type": "echo", "payload": "behind it"}])
        async with Member(ingest, admin, topic, topic).running():
            copy = await rejected.until(lambda each: each.value == value)
            await eventually(lambda: _payloads(module_world, tenant), until=lambda found: found == ["behind it"])

    assert [name for name, _ in copy.headers] == ["barnabas-problem"]
    assert json.loads(copy.headers[0][1] or b"")["code"] == "unauthorized"


async def test_a_record_that_nobody_thought_of_is_rejected_alone(ingest: RunningIngest, tenant: Caller) -> None:
    assert ingest.resources is not None
    key, good = str(tenant.tenant_id).encode(), b'{"type":"echo","payload":1}'
    known = ("authorization", f"{tenant.key}".encode())
    # Kafka knows no such header: whatever reads it fails in a way that no problem is made for.
    odd: Any = (known, ("idempotency-key", 7))
    records = [
        ConsumedRecord("barnabas.intake", 0, 1, key, good, odd, 0, 1),
        ConsumedRecord("barnabas.intake", 0, 2, key, good, (known,), 0, 1),
    ]

    wanted, bad = await read_records(records, ingest.resources.credentials, ingest.resources.clock)

    assert [one.record.offset for one in wanted] == [2]
    assert [(record.offset, problem.code) for record, problem in bad] == [(1, "internal")]


async def test_a_bad_record_is_put_aside_once_however_often_its_neighbours_are_tried(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    value = uuid.uuid4().hex.encode()
    tries = 0

    def postgres_goes_away(point: CrashPoint) -> None:
        nonlocal tries
        if point is CrashPoint.INTAKE_BEFORE_COMMIT:
            tries += 1
            if tries <= 3:
                raise DatabaseUnavailableError

    crash_points.arm(postgres_goes_away)
    try:
        async with TopicReader(module_world.kafka, topics.INTAKE_REJECTED.name) as rejected:
            await _send(module_world, topic, tenant, [value, {"type": "echo", "payload": "beside it"}])
            async with Member(ingest, admin, topic, topic).running():
                await _stored(module_world, admin, topic, 2)
            # A copy that came after it, and so after all of the record's own.
            after = f"{value.decode()}-after".encode()
            await module_world.producer.send(
                topics.INTAKE_REJECTED.name, [(str(tenant.tenant_id).encode(), after, None)]
            )
            await rejected.until(lambda each: each.value == after)
            copies = [each for each in rejected.records if each.value == value]
    finally:
        crash_points.disarm()

    assert tries > 3
    assert len(copies) == 1
    assert await _payloads(module_world, tenant) == ["beside it"]


async def test_an_intake_job_is_told_to_kafka(
    ingest: RunningIngest, tenant: Caller, module_world: World, admin: Admin, topic: str
) -> None:
    await _send(module_world, topic, tenant, _jobs(1))

    async with (
        TopicReader(module_world.kafka, topics.JOBS[1].name) as reader,
        Member(ingest, admin, topic, topic).running(),
    ):
        await reader.until(lambda each: each.key == str(tenant.tenant_id).encode())

    assert [job["status"] for job in (await tenant.get("/v1/jobs")).body["items"]] == ["queued"]
