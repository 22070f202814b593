"""Ordering keys from the outside: posted, in batches, from the intake topic; and jobs that go behind a backlog."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any

from barnabas.contract.topics import Topic
from barnabas.kafka.admin import Admin
from tests.integration.ingest.support import Caller, RunningIngest
from tests.integration.ingest.test_intake import Member
from tests.support.eventually import eventually
from tests.support.world import World


async def line(world: World, tenant: Caller, key: str = "a") -> list[str]:
    rows = await world.superuser.fetch(
        "SELECT job_id FROM ordering WHERE tenant_id = $1 AND ordering_key = $2 ORDER BY seq", tenant.tenant_id, key
    )
    return [str(row["job_id"]) for row in rows]


async def payloads(world: World, tenant: Caller, key: str = "a") -> list[Any]:
    """Of a line's jobs, in its order."""
    rows = await world.superuser.fetch(
        "SELECT payload FROM ordering JOIN job_payloads USING (tenant_id, job_id)"
        " WHERE tenant_id = $1 AND ordering.ordering_key = $2 ORDER BY seq",
        tenant.tenant_id,
        key,
    )
    return [json.loads(row["payload"]) for row in rows]


async def states(world: World, tenant: Caller) -> dict[str, int]:
    assert tenant.tenant_id is not None
    return await world.states(tenant.tenant_id)


async def test_a_hundred_posts_at_once_make_one_line_of_which_one_is_told(
    tenant: Caller, module_world: World, ingest: RunningIngest
) -> None:
    replies = await asyncio.gather(
        *[tenant.post("/v1/jobs", {"type": "echo", "payload": n, "ordering_key": "a"}) for n in range(100)]
    )

    ids = {reply.body["id"]: reply.body["status"] for reply in replies}
    standing = await line(module_world, tenant)
    assert sorted(standing) == sorted(ids)
    assert [ids[each] for each in standing] == ["queued"] + ["blocked"] * 99
    assert await states(module_world, tenant) == {"queued": 1, "blocked": 99}
    told = await module_world.superuser.fetch(
        "SELECT ref_ids FROM outbox WHERE $1 = ANY (tenant_ids)", tenant.tenant_id
    )
    assert {str(job) for row in told for job in row["ref_ids"]} <= {standing[0]}


async def test_posts_one_after_the_other_stand_in_that_order(tenant: Caller, module_world: World) -> None:
    for number in range(20):
        key = {"idempotency_key": f"k{number}"} if number % 3 == 0 else {}
        await tenant.submit(number, ordering_key="a", **key)

    assert await payloads(module_world, tenant) == list(range(20))


async def test_a_job_shows_its_ordering_key_and_queue(tenant: Caller) -> None:
    posted = await tenant.post(
        "/v1/jobs", {"type": "echo", "payload": 1, "ordering_key": "customer ä 7", "queue": "slow"}
    )
    shown = await tenant.get(f"/v1/jobs/{posted.body['id']}")

    assert posted.body == shown.body
    assert (shown.body["ordering_key"], shown.body["queue"]) == ("customer ä 7", "slow")


async def test_a_large_batch_keeps_its_order_with_and_without_idempotency_keys(
    tenant: Caller, module_world: World
) -> None:
    jobs: list[Mapping[str, Any]] = [
        {
            "type": "echo",
            "payload": number,
            "ordering_key": "ab"[number % 2],
            **({"idempotency_key": f"k{number}"} if number % 5 == 0 else {}),
        }
        for number in range(2_400)
    ]

    reply = await tenant.post("/v1/jobs/batch", jobs)

    assert {one["verdict"] for one in reply.body["items"]} == {"accepted"}
    statuses = [one["status"] for one in reply.body["items"]]
    assert statuses == ["queued"] * 2 + ["blocked"] * 2_398
    assert await payloads(module_world, tenant, "a") == list(range(0, 2_400, 2))
    assert await payloads(module_world, tenant, "b") == list(range(1, 2_400, 2))


async def test_records_of_a_partition_stand_in_its_order(
    ingest: RunningIngest, tenant: Caller, module_world: World
) -> None:
    topic = Topic(f"barnabas.intake.test-{uuid.uuid4().hex}", "tenant", 3_600_000, partitions=1)
    headers = [("authorization", f"Bearer {tenant.key}".encode())]
    records = []
    for number in range(1_200):
        body = {"type": "echo", "payload": number, "ordering_key": "a"}
        if number % 7 == 0:
            body["idempotency_key"] = f"k{number}"
        records.append((str(tenant.tenant_id).encode(), json.dumps(body).encode(), headers))
    async with Admin(module_world.kafka) as admin:
        await admin.ensure_topics(topics=[topic])
        await module_world.producer.send(topic.name, records)
        async with Member(ingest, admin, topic.name, topic.name).running():
            await eventually(lambda: line(module_world, tenant), until=lambda found: len(found) == 1_200)

    assert await payloads(module_world, tenant) == list(range(1_200))
    assert await states(module_world, tenant) == {"queued": 1, "blocked": 1_199}


async def test_ready_jobs_of_a_tenant_with_a_backlog_go_behind_it_in_order(tenant: Caller, module_world: World) -> None:
    await module_world.superuser.execute("INSERT INTO backlogs (tenant_id, queue_id) VALUES ($1, 0)", tenant.tenant_id)
    before = await module_world.superuser.fetchval("SELECT max(outbox_id) FROM outbox") or 0
    jobs = [{"type": "echo", "payload": n, "priority": n % 4} for n in range(12)]
    jobs[5]["delay_seconds"] = 60

    reply = await tenant.post("/v1/jobs/batch", jobs)
    elsewhere = await tenant.submit(1, queue="without-backlog")

    rows = await module_world.superuser.fetch(
        "SELECT kind, line, precedence, hooks & 128 AS parked, state, payload FROM waiting"
        " JOIN jobs USING (tenant_id, job_id) JOIN job_payloads USING (tenant_id, job_id)"
        " WHERE tenant_id = $1 ORDER BY waiting.precedence, seq",
        tenant.tenant_id,
    )
    assert {one["status"] for one in reply.body["items"]} == {"queued", "scheduled"}
    assert {(row["kind"], row["line"], row["parked"], row["state"]) for row in rows} == {(4, 0, 128, 2)}
    assert [(row["precedence"], int(row["payload"])) for row in rows] == [
        (3 - priority, n) for priority in (3, 2, 1, 0) for n in range(12) if n % 4 == priority and n != 5
    ]
    told = await module_world.superuser.fetch(
        "SELECT ref_ids FROM outbox WHERE outbox_id > $1 AND $2 = ANY (tenant_ids)", before, tenant.tenant_id
    )
    assert {str(job) for row in told for job in row["ref_ids"]} <= {elsewhere}
