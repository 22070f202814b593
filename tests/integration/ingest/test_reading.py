"""What a tenant reads and does: pages, waits, timelines, cancels, redrives."""

import asyncio
import time
from itertools import chain
from uuid import UUID

from barnabas.contract import topics
from barnabas.contract.events import decode_event
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import Session
from barnabas.postgres.turns import ClaimedJob, Finishing, Releasing
from tests.integration.ingest.support import Caller, RunningIngest
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.turns import claim_jobs, finish_jobs, release_jobs
from tests.support.world import World, new_id


async def _pages(caller: Caller, path: str) -> list[list[str]]:
    pages: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        reply = await caller.get(path + (f"&cursor={cursor}" if cursor else ""))
        assert reply.status == 200, reply.body
        pages.append([item["id"] for item in reply.body["items"]])
        cursor = reply.body["next_cursor"]
    return pages


async def finish(
    world: World,
    tenant_id: UUID | None,
    job_id: str,
    *,
    state: JobState = JobState.SUCCEEDED,
    error: bytes | None = None,
    reason: str | None = None,
) -> UUID:
    """Claim and end a job as a worker does; returns the event's id."""
    worker_id = await world.worker("echo")
    assert tenant_id is not None
    async with world.engine.session() as session:
        held = await claim(world, session, worker_id, tenant_id, job_id)
        ended = Finishing(
            tenant_id,
            UUID(job_id),
            held.fence,
            state,
            new_id(),
            result=b'{"done":true}' if state is JobState.SUCCEEDED else None,
            error=error,
            reason=reason,
        )
        await finish_jobs(session, worker_id, [ended])
    return ended.event_id


async def claim(world: World, session: Session, worker_id: UUID, tenant_id: UUID, job_id: str) -> ClaimedJob:
    """Claim one job as a worker does."""
    types = {await world.type_id("echo"): 60_000}
    claims = await claim_jobs(session, worker_id, new_id(), [(tenant_id, UUID(job_id))], types)
    return claims.claimed[0]


async def dead_letter(world: World, tenant_id: UUID | None, job_id: str) -> None:
    """Let a job fail for good."""
    error = b'{"code":"boom","message":"no","retryable":false}'
    await finish(world, tenant_id, job_id, state=JobState.FAILED, error=error, reason="permanent_error")


async def test_pages_hold_every_job_once_newest_first(tenant: Caller) -> None:
    batch = await tenant.post("/v1/jobs/batch", [{"type": "echo", "payload": number} for number in range(23)])
    ids = [item["id"] for item in batch.body["items"]]

    pages = await _pages(tenant, "/v1/jobs?limit=10")

    assert [len(page) for page in pages] == [10, 10, 3]
    assert list(chain.from_iterable(pages)) == ids[::-1]


async def test_a_full_last_page_has_no_cursor(tenant: Caller) -> None:
    await tenant.post("/v1/jobs/batch", [{"type": "echo", "payload": number} for number in range(4)])

    assert [len(page) for page in await _pages(tenant, "/v1/jobs?limit=2")] == [2, 2]


async def test_filters_narrow_the_list(tenant: Caller, module_world: World) -> None:
    queued = await tenant.submit(1)
    scheduled = await tenant.submit(1, delay_seconds=60)
    done = await tenant.submit(1)
    await finish(module_world, tenant.tenant_id, done)
    other = await tenant.submit(1, type="other")

    async def ids(query: str) -> list[str]:
        return [item["id"] for item in (await tenant.get(f"/v1/jobs?{query}")).body["items"]]

    assert await ids("status=queued") == [other, queued]
    assert await ids("status=queued,succeeded,scheduled") == [other, done, scheduled, queued]
    assert await ids("status=failed") == []
    assert await ids("type=other") == [other]
    assert await ids("type=never-seen") == []
    assert await ids("queue=default&status=succeeded") == [done]
    assert await ids("created_after=2020-01-01T00:00:00Z") == [other, done, scheduled, queued]
    last = (await tenant.get(f"/v1/jobs/{other}")).body["created_at"]
    assert await ids(f"created_after={last}") == []


async def test_large_results_make_a_page_shorter_not_the_process_larger(tenant: Caller, module_world: World) -> None:
    batch = await tenant.post("/v1/jobs/batch", [{"type": "echo", "payload": 1} for _ in range(60)])
    for item in batch.body["items"]:
        await finish(module_world, tenant.tenant_id, item["id"])
    # An ended job never changes, except for a test.
    async with module_world.superuser.transaction():
        await module_world.superuser.execute("SET LOCAL session_replication_role = replica")
        await module_world.superuser.execute(
            "UPDATE job_results SET result = $2 WHERE tenant_id = $1", tenant.tenant_id, b'"%b"' % (b"x" * 300_000)
        )

    pages = await _pages(tenant, "/v1/jobs?limit=60")

    assert len(pages) > 1
    assert list(chain.from_iterable(pages)) == [item["id"] for item in batch.body["items"]][::-1]


async def test_a_wait_ends_when_the_job_does(ingest: RunningIngest, tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit(1)
    began = time.monotonic()
    waiting = [asyncio.create_task(tenant.get(f"/v1/jobs/{job_id}?wait=60")) for _ in range(20)]
    assert ingest.resources is not None
    waits = ingest.resources.waits
    await eventually(lambda: sum(map(len, waits._waiting.values())), until=lambda held: held == 20)

    await finish(module_world, tenant.tenant_id, job_id)
    replies = await asyncio.gather(*waiting)

    assert time.monotonic() - began < 60
    assert {reply.body["status"] for reply in replies} == {"succeeded"}
    assert replies[0].body["result"] == {"done": True}


async def test_a_wait_for_nothing_shows_the_job_as_it_is(tenant: Caller) -> None:
    job_id = await tenant.submit(1)

    reply = await tenant.get(f"/v1/jobs/{job_id}?wait=0.2")

    assert (reply.status, reply.body["status"]) == (200, "queued")


async def test_the_timeline_shows_attempts_and_losses_as_such(tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit(1)
    assert tenant.tenant_id is not None
    worker_id = await module_world.worker("echo")
    boom = b'{"code":"boom","message":"no","retryable":true}'
    async with module_world.engine.session() as session:
        for kind, error in ((AttemptKind.ATTEMPT, boom), (AttemptKind.LOSS, None), (AttemptKind.HAND_BACK, None)):
            held = await claim(module_world, session, worker_id, tenant.tenant_id, job_id)
            back = Releasing(tenant.tenant_id, UUID(job_id), held.fence, kind, error=error)
            await release_jobs(session, worker_id, [back])
        await claim(module_world, session, worker_id, tenant.tenant_id, job_id)

    running = (await tenant.get(f"/v1/jobs/{job_id}/attempts")).body["items"]

    assert [(item["kind"], item["attempt"], item["outcome"]) for item in running] == [
        ("attempt", 1, "retried"),
        ("loss", 2, "loss"),
        ("hand_back", 2, "hand_back"),
        ("attempt", 2, "running"),
    ]
    assert running[0]["error"]["code"] == "boom"
    assert running[3]["finished_at"] is None


async def test_a_cancel_ends_a_waiting_job_and_tells_it(tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit(1, delay_seconds=60)

    async with TopicReader(module_world.kafka, topics.RESULTS.name) as reader:
        first = await tenant.post(f"/v1/jobs/{job_id}/cancel")
        record = await reader.until(lambda each: each.key == str(tenant.tenant_id).encode())
    again = await tenant.post(f"/v1/jobs/{job_id}/cancel")

    assert (first.status, first.body["status"]) == (200, "cancelled")
    assert (again.status, again.body) == (200, first.body)
    event = decode_event(record.value)
    assert (event.type, event.job_id) == ("job.cancelled", UUID(job_id))
    assert await module_world.superuser.fetchval("SELECT count(*) FROM timers WHERE ref_id = $1", UUID(job_id)) == 0


async def test_a_cancel_asks_a_running_job(tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit(1)
    worker_id = await module_world.worker("echo")
    assert tenant.tenant_id is not None
    async with module_world.engine.session() as session:
        await claim(module_world, session, worker_id, tenant.tenant_id, job_id)

    reply = await tenant.post(f"/v1/jobs/{job_id}/cancel")

    assert (reply.status, reply.body["status"], reply.body["cancel_requested"]) == (202, "running", True)
    asked = await module_world.superuser.fetchval(
        "SELECT worker_id FROM cancel_requests WHERE job_id = $1", UUID(job_id)
    )
    assert asked == worker_id


async def test_a_job_that_has_ended_can_not_be_cancelled(tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit(1)
    await finish(module_world, tenant.tenant_id, job_id)

    reply = await tenant.post(f"/v1/jobs/{job_id}/cancel")

    assert (reply.status, reply.code) == (409, "job_ended")


async def test_a_redrive_is_a_new_job_with_the_old_payload(tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit({"a": 1}, priority=2, metadata={"m": 1}, max_attempts=2)
    await dead_letter(module_world, tenant.tenant_id, job_id)

    reply = await tenant.post(f"/v1/jobs/{job_id}/retry")

    assert reply.status == 202
    new = reply.body
    assert new["id"] != job_id
    assert (new["redrive_of"], new["status"], new["attempt"]) == (job_id, "queued", 0)
    assert (new["priority"], new["max_attempts"], new["metadata"]) == (2, 2, {"m": 1})
    payloads = await module_world.superuser.fetch(
        "SELECT payload FROM job_payloads WHERE job_id = ANY ($1)", [UUID(job_id), UUID(new["id"])]
    )
    assert payloads[0]["payload"] == payloads[1]["payload"]
    assert (await tenant.get(f"/v1/jobs/{job_id}")).body["status"] == "failed"
    assert (await tenant.get("/v1/dlq")).body["items"] == []


async def test_the_same_redrive_at_once_is_one_job(tenant: Caller, module_world: World) -> None:
    job_id = await tenant.submit(1)
    await dead_letter(module_world, tenant.tenant_id, job_id)

    replies = await asyncio.gather(*(tenant.post(f"/v1/jobs/{job_id}/retry") for _ in range(10)))

    assert {reply.status for reply in replies} == {202}
    assert len({reply.body["id"] for reply in replies}) == 1


async def test_a_redrive_of_a_closed_dead_letter_is_409_once_its_job_has_ended(
    tenant: Caller, module_world: World
) -> None:
    job_id = await tenant.submit(1)
    await dead_letter(module_world, tenant.tenant_id, job_id)
    new_id_ = (await tenant.post(f"/v1/jobs/{job_id}/retry")).body["id"]
    await finish(module_world, tenant.tenant_id, new_id_)

    reply = await tenant.post(f"/v1/jobs/{job_id}/retry")

    assert (reply.status, reply.code) == (409, "dead_letter_closed")


async def test_only_a_failed_job_is_redriven(tenant: Caller, module_world: World) -> None:
    open_id, done_id = await tenant.submit(1), await tenant.submit(1)
    await finish(module_world, tenant.tenant_id, done_id)

    replies = [await tenant.post(f"/v1/jobs/{job_id}/retry") for job_id in (open_id, done_id)]

    assert [(reply.status, reply.code) for reply in replies] == [(409, "not_redrivable")] * 2


async def test_dead_letters_are_listed_filtered_and_redriven_by_id(
    ingest: RunningIngest, tenant: Caller, module_world: World
) -> None:
    ids = [await tenant.submit(number) for number in range(3)]
    for job_id in ids:
        await dead_letter(module_world, tenant.tenant_id, job_id)
    other = await ingest.tenant()

    listed = (await tenant.get("/v1/dlq?kind=jobs&type=echo&reason=permanent_error")).body["items"]
    none = (await tenant.get("/v1/dlq?reason=worker_lost")).body["items"]
    strangers = await other.post("/v1/dlq/redrive", {"filter": {"kind": "jobs", "ids": ids}})
    counted = await tenant.post("/v1/dlq/redrive", {"filter": {"kind": "jobs", "ids": ids[:2]}, "dry_run": True})
    done = await tenant.post("/v1/dlq/redrive", {"filter": {"kind": "jobs", "ids": ids[:2]}})
    again = await tenant.post("/v1/dlq/redrive", {"filter": {"kind": "jobs", "ids": ids[:2]}})

    assert [item["id"] for item in listed] == ids[::-1]
    assert listed[0]["job"]["error"]["code"] == "boom"
    assert (listed[0]["kind"], listed[0]["reason"]) == ("jobs", "permanent_error")
    assert none == []
    assert strangers.body == {"matched": 0, "done": 0, "dry_run": False}
    assert counted.body == {"matched": 2, "done": 0, "dry_run": True}
    assert done.body == {"matched": 2, "done": 2, "dry_run": False}
    assert again.body == {"matched": 0, "done": 0, "dry_run": False}
    assert [item["id"] for item in (await tenant.get("/v1/dlq")).body["items"]] == [ids[2]]
    assert await _pages(tenant, "/v1/dlq?limit=1") == [[ids[2]], []]


async def _dead_delivery(world: World, tenant: Caller) -> tuple[str, str]:
    job_id = await tenant.submit(1)
    event_id = await finish(world, tenant.tenant_id, job_id)
    endpoint_id = (await tenant.post("/v1/endpoints", {"url": "https://example.com/hook"})).body["id"]
    delivery_id = new_id()
    await world.superuser.execute(
        "INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, state, attempt, fence,"
        " finished_at, last_status, error) VALUES ($1, $2, $3, $4, $5, 5, 3, 3, now(), 500, 'http_500')",
        tenant.tenant_id, event_id, UUID(endpoint_id), delivery_id, UUID(job_id),
    )  # fmt: skip
    await world.superuser.execute(
        "INSERT INTO delivery_attempts (tenant_id, event_id, endpoint_id, fence, attempt, started_at,"
        " duration_ms, status) VALUES ($1, $2, $3, 3, 3, now(), 12, 500)",
        tenant.tenant_id, event_id, UUID(endpoint_id),
    )  # fmt: skip
    await world.superuser.execute(
        "INSERT INTO dead_letters (tenant_id, kind, ref, reason) VALUES ($1, 2, $2, 'attempts_exhausted')",
        tenant.tenant_id, delivery_id,
    )  # fmt: skip
    return str(delivery_id), endpoint_id


async def test_a_dead_delivery_is_listed_and_tried_again_with_its_attempts_counting_on(
    tenant: Caller, module_world: World
) -> None:
    delivery_id, endpoint_id = await _dead_delivery(module_world, tenant)

    listed = (await tenant.get("/v1/dlq?kind=deliveries")).body["items"]
    done = await tenant.post("/v1/dlq/redrive", {"filter": {"kind": "deliveries", "ids": [delivery_id]}})
    shown = (await tenant.get(f"/v1/deliveries?endpoint_id={endpoint_id}")).body["items"]

    assert [(item["id"], item["reason"], item["delivery"]["status"]) for item in listed] == [
        (delivery_id, "attempts_exhausted", "failed")
    ]
    assert done.body == {"matched": 1, "done": 1, "dry_run": False}
    assert [(item["id"], item["status"], item["attempt"]) for item in shown] == [(delivery_id, "pending", 3)]
    assert (await tenant.get("/v1/dlq?kind=deliveries")).body["items"] == []


async def test_a_timeline_has_the_deliveries_with_their_calls(tenant: Caller, module_world: World) -> None:
    delivery_id, _ = await _dead_delivery(module_world, tenant)
    job_id = (await tenant.get("/v1/deliveries")).body["items"][0]["job_id"]

    timeline = (await tenant.get(f"/v1/jobs/{job_id}/attempts")).body

    assert [(item["kind"], item["outcome"]) for item in timeline["items"]] == [("attempt", "succeeded")]
    assert [item["id"] for item in timeline["deliveries"]] == [delivery_id]
    assert [(call["attempt"], call["status"]) for call in timeline["deliveries"][0]["attempts"]] == [(3, 500)]


async def test_a_delivery_to_a_deleted_endpoint_is_not_redriven(tenant: Caller, module_world: World) -> None:
    delivery_id, endpoint_id = await _dead_delivery(module_world, tenant)
    await tenant.call("DELETE", f"/v1/endpoints/{endpoint_id}")

    done = await tenant.post("/v1/dlq/redrive", {"filter": {"kind": "deliveries", "ids": [delivery_id]}})

    assert done.body == {"matched": 1, "done": 0, "dry_run": False}


async def test_deliveries_of_other_tenants_are_not_there(
    ingest: RunningIngest, tenant: Caller, module_world: World
) -> None:
    await _dead_delivery(module_world, tenant)
    other = await ingest.tenant()

    assert (await other.get("/v1/deliveries")).body["items"] == []
    assert (await other.get("/v1/dlq?kind=deliveries")).body["items"] == []
