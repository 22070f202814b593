"""From an event to a signed webhook, and what each answer makes of it."""

import json
from datetime import timedelta

from barnabas.contract import topics
from barnabas.contract.events import event_time
from barnabas.domain.jobs import JobState
from barnabas.domain.signing import make_secret, plain_signature
from tests.integration.notifier.conftest import Post, StartNotifier
from tests.support.eventually import eventually
from tests.support.receiver import answer, answer_then_close
from tests.support.topics import TopicReader


async def test_an_event_becomes_a_webhook_that_the_standard_library_verifies(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(tenant_id, post.receiver.url("/hook?a=b"))
    [event] = await post.ended_jobs(tenant_id)
    await start_notifier()

    await post.announce([event])
    [request] = await post.receiver.until("/hook?a=b", 1)
    [row] = await post.until(tenant_id, succeeded=1)

    body = request.verified(endpoint.secret)
    assert body["type"] == "job.succeeded"
    assert body["data"]["id"] == str(event.job_id)
    assert body["data"]["result"] == {"score": 7}
    assert body["timestamp"] == event_time(event.id).isoformat().replace("+00:00", "Z")
    assert request.webhook_id == str(event.id)
    assert request.headers["x-signature"] == plain_signature(endpoint.secret, request.body)
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    assert row["attempt"] == 1
    assert row["last_status"] == 204
    [attempt] = await post.attempts(tenant_id)
    assert (attempt["attempt"], attempt["status"], attempt["error"]) == (1, 204, None)


async def test_only_endpoints_that_want_the_type_get_it_and_other_tenants_get_nothing(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id, stranger = await post.world.tenant(), await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/all"))
    await post.endpoint(tenant_id, post.receiver.url("/failed"), event_types=["job.failed"])
    await post.endpoint(stranger, post.receiver.url("/stranger"))
    await start_notifier()

    await post.announce(await post.ended_jobs(tenant_id))
    await post.until(tenant_id, succeeded=1)

    assert [request.path for request in post.receiver.requests] == ["/all"]
    assert await post.deliveries(stranger) == []


async def test_while_a_secret_rotates_either_one_verifies(post: Post, start_notifier: StartNotifier) -> None:
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(tenant_id, post.receiver.url("/"))
    newer = make_secret(bytes(range(32)))
    await post.add_secret(tenant_id, endpoint.endpoint_id, newer)
    await start_notifier()

    await post.announce(await post.ended_jobs(tenant_id))
    [request] = await post.receiver.until("/", 1)

    assert request.verified(endpoint.secret) == request.verified(newer)
    assert request.headers["x-signature"] == plain_signature(newer, request.body)


async def test_own_headers_are_sent_but_never_in_place_of_ours(post: Post, start_notifier: StartNotifier) -> None:
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(
        tenant_id,
        post.receiver.url("/"),
        headers={"X-Own": "yes", "Webhook-Id": "forged", "HOST": "elsewhere", "Content-Length": "3", "X-Bad": "a\r\nb"},
    )
    await start_notifier()

    await post.announce(await post.ended_jobs(tenant_id))
    [request] = await post.receiver.until("/", 1)

    request.verified(endpoint.secret)
    assert request.headers["x-own"] == "yes"
    assert request.headers["host"] == f"127.0.0.1:{post.receiver.port}"
    assert "x-bad" not in request.headers


async def test_a_failing_receiver_is_tried_again_after_its_schedule_until_it_succeeds(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(tenant_id, post.receiver.script("/", 500, 503, 200), schedule=[0.05, 0.05])
    await start_notifier()

    async with TopicReader(post.world.kafka, topics.RETRIES.name) as retries:
        await post.announce(await post.ended_jobs(tenant_id))
        for tries in (1, 2):
            [row] = await eventually(
                lambda: post.deliveries(tenant_id),
                until=lambda rows, n=tries: rows and rows[0]["attempt"] == n and rows[0]["state"] == 3,  # type: ignore[misc]
            )
            timer = await post.world.superuser.fetchrow("SELECT * FROM timers WHERE ref_id = $1", row["event_id"])
            assert timer["poll_at"] - timer["due_at"] == timedelta(seconds=5)
            await retries.until(lambda record, event_id=row["event_id"]: event_id.bytes in (record.value or b""))  # type: ignore[misc]
            await post.bring_back(row)
        [row] = await post.until(tenant_id, succeeded=1)

    assert [request.webhook_id for request in post.receiver.requests] == [str(row["event_id"])] * 3
    assert len({request.body for request in post.receiver.requests}) == 1
    for request in post.receiver.requests:
        request.verified(endpoint.secret)
    assert [attempt["status"] for attempt in await post.attempts(tenant_id)] == [500, 503, 200]


async def test_nothing_but_2xx_is_success_and_redirects_are_not_followed(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    statuses = (301, 302, 304, 307, 400, 404, 429, 500)
    elsewhere = {"Location": post.receiver.url("/elsewhere")}
    for status in statuses:
        await post.endpoint(
            tenant_id, post.receiver.script(f"/{status}", answer(status, headers=elsewhere)), schedule=[60]
        )
    await start_notifier()

    await post.announce(await post.ended_jobs(tenant_id))
    rows = await post.until(tenant_id, retrying=len(statuses))

    assert sorted(row["error"] for row in rows) == [f"http_{status}" for status in statuses]
    assert post.receiver.at("/elsewhere") == []


async def test_gone_disables_the_endpoint_and_later_events_leave_a_visible_row(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(tenant_id, post.receiver.script("/", 410))
    first, second = await post.ended_jobs(tenant_id, 2)
    await start_notifier()

    await post.announce([first])
    [row] = await post.until(tenant_id, failed=1)
    await post.announce([second])
    rows = await post.until(tenant_id, failed=1, cancelled=1)

    assert rows[1]["error"] == "endpoint_disabled"
    assert len(post.receiver.requests) == 1
    stored = await post.world.superuser.fetchrow(
        "SELECT disabled_at, disabled_reason FROM endpoints WHERE endpoint_id = $1", endpoint.endpoint_id
    )
    assert stored["disabled_at"] is not None
    assert stored["disabled_reason"] == "gone"
    dead = await post.world.superuser.fetchrow("SELECT * FROM dead_letters WHERE ref = $1", row["delivery_id"])
    assert dead["reason"] == "endpoint_gone"


async def test_retry_after_is_a_floor_under_the_schedule(post: Post, start_notifier: StartNotifier) -> None:
    tenant_id = await post.world.tenant()
    url = post.receiver.script("/", answer(503, headers={"Retry-After": "120"}))
    await post.endpoint(tenant_id, url, schedule=[1])
    await start_notifier()

    await post.announce(await post.ended_jobs(tenant_id))
    [row] = await post.until(tenant_id, retrying=1)

    wait = row["due_at"] - (await post.attempts(tenant_id))[0]["started_at"]
    # Jitter only adds, a tenth at the most; the call itself may have taken a while.
    assert timedelta(seconds=120) <= wait <= timedelta(seconds=132 + 60)


async def test_a_used_up_schedule_is_a_dead_letter_in_postgres_and_in_the_topic(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(tenant_id, post.receiver.script("/", 500), schedule=[])
    await start_notifier()

    async with TopicReader(post.world.kafka, topics.DELIVERIES_DLQ.name) as dead_letters:
        await post.announce(await post.ended_jobs(tenant_id))
        [row] = await post.until(tenant_id, failed=1)
        record = await dead_letters.until(lambda record: str(row["delivery_id"]).encode() in (record.value or b""))

    told = json.loads(record.value or b"")
    assert (told["reason"], told["error"], told["last_status"]) == ("attempts_exhausted", "http_500", 500)
    assert told["endpoint_id"] == str(endpoint.endpoint_id)
    assert ("reason", b"attempts_exhausted") in record.headers
    dead = await post.world.superuser.fetchrow("SELECT * FROM dead_letters WHERE ref = $1", row["delivery_id"])
    assert (dead["kind"], dead["reason"]) == (2, "attempts_exhausted")
    assert await eventually(lambda: _outbox_rows(post, tenant_id), until=lambda count: count == 0) == 0


async def test_a_failed_job_is_told_as_failed(post: Post, start_notifier: StartNotifier) -> None:
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(tenant_id, post.receiver.url("/"), event_types=["job.failed"])
    await start_notifier()

    await post.announce(await post.ended_jobs(tenant_id, state=JobState.FAILED))
    [request] = await post.receiver.until("/", 1)

    body = request.verified(endpoint.secret)
    assert (body["type"], body["data"]["status"]) == ("job.failed", "failed")


async def test_a_connection_is_used_again_and_one_just_closed_costs_no_attempt(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.script("/", 200, 200, answer_then_close(200)))
    events = await post.ended_jobs(tenant_id, 5)
    await start_notifier()

    for done, event in enumerate(events):
        await post.announce([event])
        await post.until(tenant_id, succeeded=done + 1)

    connections = [request.connection for request in post.receiver.requests]
    assert connections[:3] == [1, 1, 1]
    assert [attempt["attempt"] for attempt in await post.attempts(tenant_id)] == [1] * 5


async def _outbox_rows(post: Post, tenant_id: object) -> int:
    count: int = await post.world.superuser.fetchval(
        "SELECT count(*) FROM outbox WHERE kind = 4 AND $1 = ANY (tenant_ids)", tenant_id
    )
    return count
