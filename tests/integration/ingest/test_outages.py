"""When something is away, full or ending: never a false 202, never a 500, and nothing accepted is lost."""

import asyncio
import gc
import json
import secrets
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from barnabas.runtime.service import EXIT_STOPPED
from barnabas_ingest.resources import Resources, unready
from tests.integration.ingest.support import NO_KAFKA, Caller, RunningIngest, Wire, running_ingest
from tests.integration.ingest.test_reading import finish
from tests.support.eventually import eventually
from tests.support.world import World

JOB = {"type": "echo", "payload": 1}


@asynccontextmanager
async def _on_a_wire(
    world: World, queue_bytes_max: int = 64 * 1024 * 1024
) -> AsyncIterator[tuple[RunningIngest, Wire]]:
    async with Wire(world.logins.engine_dsn) as wire:
        through = type(world.logins)(
            world.logins.owner_dsn, wire.through(world.logins.engine_dsn), wire.through(world.logins.api_dsn)
        )
        async with running_ingest(world.kafka, through, queue_bytes_max=str(queue_bytes_max)) as ingest:
            yield ingest, wire


def _held(resources: Resources) -> float:
    """How many of `JOB` were taken in and are not stored yet, by the bytes that are held for them."""
    return resources.budget.used / (len(json.dumps(JOB)) + 2_048)


async def _count(world: World, tenant: Caller) -> int:
    return int(await world.superuser.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = $1", tenant.tenant_id))


async def test_without_postgres_every_call_is_503_and_then_works_again(world: World) -> None:
    async with _on_a_wire(world) as (ingest, wire):
        tenant = await ingest.tenant()
        job_id = await tenant.submit(1)

        await wire.cut()
        replies = [
            await tenant.post("/v1/jobs", JOB),
            await tenant.post("/v1/jobs", JOB, headers={"Idempotency-Key": "k"}),
            await tenant.post("/v1/jobs/batch", [JOB, JOB]),
            await tenant.get(f"/v1/jobs/{job_id}"),
            await tenant.get("/v1/jobs"),
            await tenant.post(f"/v1/jobs/{job_id}/cancel"),
            await tenant.post("/v1/endpoints", {"url": "https://example.com/"}),
            await ingest.admin.get("/v1/admin/tenants"),
        ]
        await wire.restore()

        assert [(reply.status, reply.code) for reply in replies] == [(503, "database_unavailable")] * len(replies)
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)
        assert all(reply.body["retryable"] for reply in replies)
        await eventually(lambda: tenant.post("/v1/jobs", JOB), until=lambda reply: reply.status == 202)
        assert await _count(world, tenant) == 2


async def test_ingest_is_ready_again_when_postgres_is_back_though_nobody_asks(world: World) -> None:
    async with _on_a_wire(world) as (ingest, wire):
        tenant = await ingest.tenant()
        resources = ingest.resources
        assert resources is not None

        async def cut() -> list[str]:
            # The credential is remembered for some seconds: only then does a job get as far as its lane.
            await eventually(lambda: tenant.post("/v1/jobs", JOB), until=lambda reply: reply.status == 202, timeout=60)
            await wire.cut()
            await tenant.post("/v1/jobs", JOB)
            reasons = list(unready(resources))
            if not reasons:
                await wire.restore()
            return reasons

        await eventually(cut, until=lambda reasons: reasons == ["Postgres is away"], timeout=60)
        await wire.restore()

        await eventually(lambda: not list(unready(resources)), timeout=60)


async def test_what_was_answered_202_while_postgres_came_and_went_is_there(world: World) -> None:
    async with _on_a_wire(world) as (ingest, wire):
        tenant = await ingest.tenant()
        accepted: list[str] = []
        statuses: Counter[int] = Counter()
        over = asyncio.Event()

        async def submit_for_ever() -> None:
            while not over.is_set():
                reply = await tenant.post("/v1/jobs", JOB)
                statuses[reply.status] += 1
                if reply.status == 202:
                    accepted.append(reply.body["id"])

        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(submit_for_ever())
            for _ in range(3):
                seen = len(accepted)
                await eventually(lambda seen=seen: len(accepted) > seen + 50)  # type: ignore[misc]
                refused = statuses[503]
                await wire.cut()
                await eventually(lambda refused=refused: statuses[503] > refused)  # type: ignore[misc]
                await wire.restore()
            over.set()

    assert set(statuses) == {202, 503}
    stored = await world.superuser.fetch("SELECT job_id FROM jobs WHERE tenant_id = $1", tenant.tenant_id)
    assert {UUID(job_id) for job_id in accepted} <= {row["job_id"] for row in stored}
    assert len(set(accepted)) == len(accepted)


async def test_without_kafka_jobs_are_accepted_and_their_outbox_rows_stay(world: World) -> None:
    async with running_ingest(NO_KAFKA, world.logins) as ingest:
        tenant = await ingest.tenant()

        ids = [UUID(await tenant.submit(number)) for number in range(5)]
        batch = await tenant.post("/v1/jobs/batch", [JOB] * 3)
        cancelled = await tenant.post(f"/v1/jobs/{ids[0]}/cancel")

    assert [item["verdict"] for item in batch.body["items"]] == ["accepted"] * 3
    assert cancelled.body["status"] == "cancelled"
    told = await world.superuser.fetch("SELECT kind, ref_ids FROM outbox")
    ready = {ref for row in told if row["kind"] == 1 for ref in row["ref_ids"]}
    assert set(ids) <= ready
    assert len(ready) == 8
    assert [row["ref_ids"] for row in told if row["kind"] == 3] == [[ids[0]]]


async def test_a_stop_answers_what_was_taken_in(world: World) -> None:
    async with running_ingest(world.kafka, world.logins, drain_seconds="60") as ingest:
        tenant = await ingest.tenant()
        job_id = await tenant.submit(1)
        assert ingest.resources is not None
        resources = ingest.resources
        # Nothing is stored before the stop has been heard: else it could come when all is over, or before it began.
        async with world.superuser.transaction():
            await world.superuser.execute("LOCK TABLE jobs IN SHARE MODE")
            waiting = asyncio.create_task(tenant.get(f"/v1/jobs/{job_id}?wait=50"))
            submitting = [asyncio.create_task(tenant.post("/v1/jobs", JOB)) for _ in range(50)]
            await eventually(lambda: resources.waits._waiting and _held(resources) == 50)
            ending = asyncio.create_task(ingest.end())
            await eventually(lambda: resources.listener.fileno() == -1)
        code = await ending
        replies = [await task for task in submitting]

        assert code == EXIT_STOPPED
        assert [reply.status for reply in replies] == [202] * 50
        assert (await waiting).status == 200
    assert await _count(world, tenant) == 51


async def test_a_tenant_that_fills_the_queue_is_refused_before_the_others(world: World) -> None:
    async with _on_a_wire(world, queue_bytes_max=16 * 1024 * 1024) as (ingest, _):
        greedy, modest = await ingest.tenant(), await ingest.tenant()
        assert ingest.resources is not None
        budget = ingest.resources.budget
        assert greedy.tenant_id is not None
        # As many megabytes as a tenant may have on their way, held by a batch that is still arriving.
        with budget.hold(greedy.tenant_id, 4 * 1024 * 1024 - 10_000):
            refused = await greedy.post("/v1/jobs", {"type": "echo", "payload": "x" * 100_000})
            accepted = await modest.post("/v1/jobs", {"type": "echo", "payload": "x" * 100_000})
        after = await greedy.post("/v1/jobs", {"type": "echo", "payload": "x" * 100_000})

    assert (refused.status, refused.code) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert (accepted.status, after.status) == (202, 202)


async def test_overload_is_refused_and_memory_stays_flat(world: World) -> None:
    async with running_ingest(
        world.kafka, world.logins, queue_bytes_max=str(16 * 1024 * 1024), request_seconds="60"
    ) as ingest:
        tenants = [await ingest.tenant() for _ in range(6)]
        body = {"type": "echo", "payload": secrets.token_hex(250_000)}
        await tenants[0].post("/v1/jobs", body)

        async def burst() -> Counter[int]:
            replies = await asyncio.gather(*(tenants[number % 6].post("/v1/jobs", body) for number in range(120)))
            return Counter(reply.status for reply in replies)

        def alive() -> int:
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        statuses = await burst()
        # What is alive, not what the process has of the system: that depends on everything that ran before.
        tracemalloc.start()
        try:
            for _ in range(3):
                statuses += await burst()
            # The connections are still there, and have nothing of what was sent.
            await eventually(alive, until=lambda size: size < 8 * 1024 * 1024)
        finally:
            tracemalloc.stop()

        assert set(statuses) <= {202, 503}
        assert statuses[202] > 0
        assert ingest.resources is not None
        assert ingest.resources.budget.used == 0
        assert sum([await _count(world, tenant) for tenant in tenants]) == statuses[202] + 1


async def test_more_requests_than_the_limit_are_503(world: World) -> None:
    async with running_ingest(world.kafka, world.logins, http_connections_max="4") as ingest:
        tenant = await ingest.tenant()
        job_id = await tenant.submit(1)
        waits = [asyncio.create_task(tenant.get(f"/v1/jobs/{job_id}?wait=60")) for _ in range(4)]
        resources = ingest.resources
        assert resources is not None
        await eventually(lambda: sum(map(len, resources.waits._waiting.values())), until=lambda held: held == 4)

        reply = await tenant.post("/v1/jobs", JOB)
        await finish(world, tenant.tenant_id, job_id)

        assert reply.status == 503
        assert reply.code == "overloaded"
        assert {(await wait).status for wait in waits} == {200}
        assert (await tenant.post("/v1/jobs", JOB)).status == 202


@pytest.mark.parametrize("login", ["superuser", "owner"])
async def test_a_login_with_too_many_rights_is_refused(servers: object, world: World, login: str) -> None:
    from tests.support.world import _superuser

    strong = world.logins.owner_dsn if login == "owner" else _superuser(servers, world.logins)  # type: ignore[arg-type]
    logins = type(world.logins)(world.logins.owner_dsn, strong, world.logins.api_dsn)

    with pytest.raises(AssertionError, match="did not start"):
        async with running_ingest(world.kafka, logins):
            pass
