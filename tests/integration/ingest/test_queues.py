"""Queues at the door: made by their first job, bounded in number, and set by the administrator."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from barnabas.contract import topics
from barnabas.contract.records import decode
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas_local.database import Logins
from tests.integration.ingest.support import NO_KAFKA, Caller, RunningIngest, running_ingest
from tests.support.topics import TopicReader
from tests.support.world import World

DEFAULT_SHARES = {"critical": 25, "high": 25, "medium": 30, "low": 20}


@pytest.fixture
async def kafka_admin(module_world: World) -> AsyncIterator[Admin]:
    async with Admin(module_world.kafka) as admin:
        yield admin


@pytest.fixture
async def queue(kafka_admin: Admin) -> AsyncIterator[str]:
    """The name of a queue that no other test has; its topics go at the end."""
    name = f"q{uuid.uuid4().hex[:8]}"
    yield name
    # It is asked for in any case: that a starved broker is slow to answer is no failure.
    with suppress(BrokerUnavailableError):
        await kafka_admin.delete_topics([topic.name for topic in topics.topics_of_queue(name)])


async def names_in_kafka(admin: Admin) -> set[str]:
    return await admin.call(lambda client: set(client.list_topics(timeout=60).topics))


async def revision(world: World) -> int:
    found: int = await world.superuser.fetchval("SELECT revision FROM revisions WHERE name = 'sharing'")
    return found


async def test_the_first_job_of_a_queue_makes_the_queue_with_its_topics(
    tenant: Caller, module_world: World, kafka_admin: Admin, queue: str
) -> None:
    names = {topic.name for topic in topics.topics_of_queue(queue)}
    assert not names & await names_in_kafka(kafka_admin)
    before = await revision(module_world)

    reply = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "queue": queue, "priority": "high"})

    assert reply.status == 202, reply.body
    assert names <= await names_in_kafka(kafka_admin)
    assert reply.body["queue"] == queue
    assert (await tenant.get(f"/v1/jobs/{reply.body['id']}")).body["queue"] == queue
    assert await revision(module_world) == before + 1
    async with TopicReader(module_world.kafka, topics.job_topic(queue, 2)) as reader:
        record = await reader.until(lambda each: each.key == str(tenant.tenant_id).encode())
    assert decode(record.value).ref_id == uuid.UUID(reply.body["id"])
    stored = await module_world.superuser.fetchval("SELECT queue_id FROM queues WHERE name = $1", queue)
    assert decode(record.value).queue_id == stored


async def test_many_first_jobs_at_once_make_one_queue(
    tenant: Caller, ingest: RunningIngest, module_world: World, queue: str
) -> None:
    async with running_ingest(module_world.kafka, module_world.logins) as second:
        there = Caller(tenant._http, second.url, tenant.key)

        replies = await asyncio.gather(
            *(each.post("/v1/jobs", {"type": "echo", "payload": 1, "queue": queue}) for each in [tenant, there] * 20)
        )

    assert {reply.status for reply in replies} == {202}
    assert await module_world.superuser.fetchval("SELECT count(*) FROM queues WHERE name = $1", queue) == 1
    numbers = await module_world.superuser.fetch(
        "SELECT DISTINCT queue_id FROM jobs WHERE tenant_id = $1", tenant.tenant_id
    )
    assert len(numbers) == 1


async def test_a_batch_may_name_several_queues_and_a_bad_name_spoils_its_own_job_only(
    tenant: Caller, module_world: World, queue: str
) -> None:
    jobs = [
        {"type": "echo", "payload": 1},
        {"type": "echo", "payload": 2, "queue": queue},
        {"type": "echo", "payload": 3, "queue": "Not A Queue"},
        {"type": "echo", "payload": 4, "queue": "default", "idempotency_key": "k"},
    ]

    reply = await tenant.post("/v1/jobs/batch", jobs)

    verdicts = reply.body["items"]
    assert [each["verdict"] for each in verdicts] == ["accepted", "accepted", "rejected", "accepted"]
    assert verdicts[2]["problem"]["errors"][0]["pointer"].endswith("/queue")
    rows = await module_world.superuser.fetch(
        "SELECT name, count(*) AS n FROM jobs JOIN queues USING (queue_id) WHERE tenant_id = $1 GROUP BY name",
        tenant.tenant_id,
    )
    assert {row["name"]: row["n"] for row in rows} == {"default": 2, queue: 1}


@pytest.mark.parametrize("name", ["", "-a", "UPPER", "a.b", "x" * 33, "a\n", 7])
async def test_what_is_no_name_for_a_queue_is_refused_with_its_place(tenant: Caller, name: object) -> None:
    reply = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "queue": name})

    assert (reply.status, reply.code) == (422, "validation_failed")
    assert reply.pointers == ["/queue"]


async def test_above_the_bound_no_queue_is_made_and_nobody_is_told_of_news(
    database: Logins, servers: object, module_world: World, kafka_admin: Admin, queue: str
) -> None:
    async with running_ingest(module_world.kafka, database, queues_max="2") as ingest:
        tenant = await ingest.tenant()
        assert await tenant.submit(queue=queue)

        refused = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1, "queue": f"{queue}-2"})
        batch = await tenant.post("/v1/jobs/batch", [{"type": "echo", "payload": 1, "queue": f"{queue}-2"}])

        assert (refused.status, refused.code) == (422, "too_many_queues")
        assert batch.body["items"][0]["problem"]["code"] == "too_many_queues"
        assert await tenant.submit(queue=queue)
        listed = await ingest.admin.get("/v1/admin/queues")
        assert [each["name"] for each in listed.body["items"]] == ["default", queue]
        assert f"barnabas.jobs.{queue}-2.low" not in await names_in_kafka(kafka_admin)


async def test_with_kafka_away_jobs_of_a_known_queue_are_accepted_and_a_new_one_is_not_made(
    tenant: Caller, module_world: World, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.submit(queue=queue)
    monkeypatch.setattr("barnabas_ingest.queues._TOPICS_SECONDS", 5.0)
    async with running_ingest(NO_KAFKA, module_world.logins) as ingest:
        there = Caller(tenant._http, ingest.url, tenant.key)

        known = await there.post("/v1/jobs", {"type": "echo", "payload": 1, "queue": queue})
        new = await asyncio.gather(
            *(there.post("/v1/jobs", {"type": "echo", "payload": 1, "queue": f"{queue}-2"}) for _ in range(5))
        )

        batch = await there.post(
            "/v1/jobs/batch", [{"type": "echo", "payload": 1, "queue": f"{queue}-{number}"} for number in range(20)]
        )

    assert known.status == 202
    assert (batch.status, batch.code) == (503, "broker_unavailable")
    assert await module_world.superuser.fetchval(
        "SELECT count(*) FROM outbox WHERE $1 = ANY (ref_ids)", uuid.UUID(known.body["id"])
    )
    # One attempt for all of them, or they would have waited in turn.
    assert {(each.status, each.code, each.body["retryable"]) for each in new} == {(503, "broker_unavailable", True)}
    assert not await module_world.superuser.fetchval("SELECT count(*) FROM queues WHERE name = $1", f"{queue}-2")


async def test_the_administrator_reads_and_sets_shares_and_workers_are_told(
    ingest: RunningIngest, module_world: World, queue: str
) -> None:
    shares = {"critical": 70, "high": 10, "medium": 10, "low": 10}
    assert (await ingest.admin.get(f"/v1/admin/queues/{queue}")).status == 404

    made = await ingest.admin.call("PUT", f"/v1/admin/queues/{queue}", {})
    before = await revision(module_world)
    changed = await ingest.admin.call("PUT", f"/v1/admin/queues/{queue}", {"shares": shares})

    assert (made.status, made.body) == (200, {"name": queue, "shares": DEFAULT_SHARES})
    assert changed.body == {"name": queue, "shares": shares}
    assert await revision(module_world) == before + 1
    assert (await ingest.admin.get(f"/v1/admin/queues/{queue}")).body == changed.body
    listed = (await ingest.admin.get("/v1/admin/queues")).body["items"]
    assert listed[0] == {"name": "default", "shares": DEFAULT_SHARES}
    assert changed.body in listed
    stored = await module_world.superuser.fetchval("SELECT shares FROM queues WHERE name = $1", queue)
    assert stored == [10, 10, 10, 70]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"shares": {"low": 0}}, "/shares/low"),
        ({"shares": {"critical": 1001}}, "/shares/critical"),
        ({"shares": {"urgent": 1}}, "/shares"),
        ({"share": {}}, ""),
    ],
)
async def test_shares_that_can_not_be_are_refused_with_their_place(
    ingest: RunningIngest, body: dict[str, object], pointer: str
) -> None:
    reply = await ingest.admin.call("PUT", "/v1/admin/queues/default", body)

    assert (reply.status, reply.code) == (422, "validation_failed")
    assert reply.pointers[0].startswith(pointer)


async def test_only_the_admin_key_opens_the_queues_routes(ingest: RunningIngest, tenant: Caller) -> None:
    assert (await ingest.nobody.get("/v1/admin/queues")).status == 401
    assert (await tenant.get("/v1/admin/queues")).status == 401
    assert (await tenant.call("PUT", "/v1/admin/queues/default", {})).status == 401
    assert (await ingest.admin.call("PUT", "/v1/admin/queues/Not-A-Queue", {})).status == 422


async def test_jobs_are_listed_by_their_queue(tenant: Caller, queue: str) -> None:
    mine = await tenant.submit(queue=queue)
    await tenant.submit()

    listed = await tenant.get(f"/v1/jobs?queue={queue}")

    assert [job["id"] for job in listed.body["items"]] == [mine]
