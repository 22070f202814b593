"""Single jobs: accepted once, told to Kafka, and exactly once for an idempotency key."""

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from barnabas.contract import topics
from barnabas.contract.records import decode
from tests.integration.ingest.support import Caller, RunningIngest
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.world import World


async def test_an_accepted_job_is_in_postgres_with_its_payload_byte_for_byte(
    tenant: Caller, module_world: World
) -> None:
    body = b'{"type":"echo",  "payload": {"b":1,"a":[1.0, "\\u00e9"]} ,"metadata":{"z":1}}'

    reply = await tenant.post("/v1/jobs", raw=body)

    assert reply.status == 202
    assert reply.headers["Location"] == f"/v1/jobs/{reply.body['id']}"
    row = await module_world.superuser.fetchrow("SELECT * FROM job_payloads WHERE job_id = $1", UUID(reply.body["id"]))
    assert row["payload"] == b'{"b":1,"a":[1.0, "\\u00e9"]}'
    assert row["tenant_id"] == tenant.tenant_id


async def test_the_answer_is_the_job_as_get_shows_it(tenant: Caller) -> None:
    accepted = await tenant.post(
        "/v1/jobs",
        {
            "type": "echo",
            "payload": 1,
            "priority": "high",
            "max_attempts": 4,
            "metadata": {"a": 1},
            "timeout_seconds": 2.5,
        },
    )

    shown = await tenant.get(f"/v1/jobs/{accepted.body['id']}")

    assert shown.body == accepted.body
    assert shown.body["priority"] == 2
    assert shown.body["status"] == "queued"


async def test_kafka_is_told_and_the_outbox_row_goes(tenant: Caller, module_world: World) -> None:
    async with TopicReader(module_world.kafka, topics.JOBS[3].name) as reader:
        job_id = UUID(await tenant.submit({"a": 1}, priority="critical"))
        record = await reader.until(lambda each: each.key == str(tenant.tenant_id).encode())

    envelope = decode(record.value)
    assert (envelope.tenant_id, envelope.fence, envelope.due_ms) == (tenant.tenant_id, 0, 0)
    assert envelope.ref_id == job_id

    async def left() -> int:
        return int(
            await module_world.superuser.fetchval("SELECT count(*) FROM outbox WHERE $1 = ANY (ref_ids)", job_id)
        )

    await eventually(left, until=lambda count: count == 0)


async def test_a_job_for_later_waits_in_postgres(tenant: Caller, module_world: World) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)

    by_time = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "run_at": at.isoformat()})
    by_delay = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "delay_seconds": 0.5})
    past = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "run_at": "2020-01-01T00:00:00Z"})

    assert by_time.body["status"] == by_delay.body["status"] == "scheduled"
    assert datetime.fromisoformat(by_time.body["run_at"]) == at
    assert past.body["status"] == "queued"
    timers = await module_world.superuser.fetch(
        "SELECT ref_id, due_at FROM timers WHERE tenant_id = $1", tenant.tenant_id
    )
    assert {str(row["ref_id"]) for row in timers} == {by_time.body["id"], by_delay.body["id"]}


async def test_a_hundred_equal_posts_at_once_make_one_job(tenant: Caller, module_world: World) -> None:
    body = {"type": "echo", "payload": {"n": 1}}

    replies = await asyncio.gather(
        *(tenant.post("/v1/jobs", body, headers={"Idempotency-Key": "order-1"}) for _ in range(100))
    )

    assert Counter(reply.status for reply in replies) == {202: 1, 200: 99}
    assert len({reply.body["id"] for reply in replies}) == 1
    assert all(reply.headers["Idempotent-Replayed"] == "true" for reply in replies if reply.status == 200)
    assert (
        await module_world.superuser.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = $1", tenant.tenant_id) == 1
    )


async def test_equal_posts_to_two_processes_make_one_job(ingest: RunningIngest, module_world: World) -> None:
    from tests.integration.ingest.support import running_ingest

    tenant = await ingest.tenant()
    async with running_ingest(module_world.kafka, module_world.logins) as second:
        other = Caller(tenant._http, second.url, tenant.key)
        replies = await asyncio.gather(
            *(
                caller.post("/v1/jobs", {"type": "echo", "payload": 1}, headers={"Idempotency-Key": f"key-{number}"})
                for number in range(20)
                for caller in (tenant, other)
            )
        )

    assert Counter(reply.status for reply in replies) == {202: 20, 200: 20}
    assert (
        await module_world.superuser.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = $1", tenant.tenant_id) == 20
    )


async def test_the_same_key_with_another_body_is_refused(tenant: Caller) -> None:
    key = {"Idempotency-Key": "k"}
    first = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "priority": 2}, headers=key)

    other = await tenant.post("/v1/jobs", {"type": "echo", "payload": 2, "priority": 2}, headers=key)
    reordered = await tenant.post("/v1/jobs", raw=b'{"priority":2, "payload":1,"type":"echo"}', headers=key)

    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert (reordered.status, reordered.body["id"]) == (200, first.body["id"])


async def test_a_key_is_the_tenants_own(ingest: RunningIngest) -> None:
    one, two = await ingest.tenant(), await ingest.tenant()

    replies = [
        await caller.post("/v1/jobs", {"type": "echo", "payload": 1}, headers={"Idempotency-Key": "same"})
        for caller in (one, two)
    ]

    assert [reply.status for reply in replies] == [202, 202]


async def test_a_key_in_the_body_is_the_key_in_the_header(tenant: Caller) -> None:
    first = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1}, headers={"Idempotency-Key": "k"})

    again = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "idempotency_key": "k"})

    assert (again.status, again.body["id"]) == (200, first.body["id"])


async def test_many_connections_share_transactions(tenant: Caller, module_world: World) -> None:
    async def submit_some() -> None:
        for _ in range(10):
            await tenant.submit(1)

    await asyncio.gather(*(submit_some() for _ in range(64)))

    assert (
        await module_world.superuser.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = $1", tenant.tenant_id) == 640
    )
    rows = await module_world.superuser.fetchval(
        "SELECT count(DISTINCT xmin::text) FROM jobs WHERE tenant_id = $1", tenant.tenant_id
    )
    assert rows < 640 / 4


@pytest.mark.parametrize(
    ("credential", "why"),
    [
        ({}, "none"),
        ({"Authorization": "Bearer nonsense"}, "unknown"),
        ({"Authorization": "Basic bm8="}, "another scheme"),
        ({"X-API-Key": "bk_" + "0" * 32 + "_" + "0" * 33 + "_000000"}, "wrong check digits"),
    ],
)
async def test_a_wrong_credential_is_401(ingest: RunningIngest, credential: dict[str, str], why: str) -> None:
    reply = await ingest.nobody.post("/v1/jobs", {"type": "echo", "payload": 1}, headers=credential)

    assert (reply.status, reply.code) == (401, "unauthorized"), why
    assert reply.headers["WWW-Authenticate"] == "Bearer"


async def test_an_api_key_works_in_its_own_header(ingest: RunningIngest, tenant: Caller) -> None:
    assert tenant.key is not None

    reply = await ingest.nobody.post("/v1/jobs", {"type": "echo", "payload": 1}, headers={"X-API-Key": tenant.key})

    assert reply.status == 202


async def test_a_key_whose_secret_differs_is_401(ingest: RunningIngest, tenant: Caller) -> None:
    from barnabas.domain.keys import make_key, parse_key

    assert tenant.key is not None
    parsed = parse_key(tenant.key)
    assert parsed is not None
    forged = make_key(parsed.key_id, bytes(24))

    reply = await ingest.nobody.post("/v1/jobs", {"type": "echo", "payload": 1}, headers={"X-API-Key": forged})

    assert reply.status == 401


async def test_a_revoked_key_is_refused_within_five_seconds(ingest: RunningIngest) -> None:
    tenant = await ingest.tenant()
    await tenant.submit(1)
    keys = await ingest.admin.get(f"/v1/admin/tenants/{tenant.tenant_id}/keys")

    gone = await ingest.admin.call("DELETE", f"/v1/admin/tenants/{tenant.tenant_id}/keys/{keys.body['items'][0]['id']}")
    revoked_at = time.monotonic()
    accepted_at = [revoked_at]

    async def ask() -> int:
        asked_at = time.monotonic()
        reply = await tenant.get("/v1/jobs")
        if reply.status == 200:
            accepted_at.append(asked_at)
        return reply.status

    await eventually(ask, until=lambda status: status == 401)

    assert gone.status == 204
    # By when it was sent: on a starved machine the last look may be much later.
    assert accepted_at[-1] - revoked_at < 5


async def test_unread_priorities_and_types_of_a_job_are_stored_as_numbers(tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit(None, priority=0)

    row = await module_world.superuser.fetchrow("SELECT * FROM jobs WHERE job_id = $1", UUID(job_id))
    assert (row["priority"], row["state"], row["queue_id"], row["hooks"]) == (0, 2, 0, 0)
    assert (
        json.loads(
            await module_world.superuser.fetchval("SELECT payload FROM job_payloads WHERE job_id = $1", UUID(job_id))
        )
        is None
    )
