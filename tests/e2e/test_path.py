"""The whole path, as a tenant sees it: a job goes in, a signed webhook comes out."""

import asyncio
import itertools
import json
import uuid

import pytest

from barnabas.client.api import AsyncClient
from barnabas.client.errors import ProblemError
from barnabas.client.models import Job
from barnabas.contract import topics
from barnabas.domain.backoff import RetryPolicy
from barnabas.kafka.producer import Producer
from tests.support.eventually import eventually
from tests.support.receiver import Receiver
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(600)

# Only a failure takes that long.
_PATIENCE_SECONDS = 120.0

FAST = RetryPolicy(base_seconds=0.3, factor=2.0, cap_seconds=5.0)


async def endpoint(client: AsyncClient, url: str) -> str:
    made = await client.create_endpoint(url, retry_schedule_seconds=[0.2, 0.2])
    assert made.secret is not None
    return made.secret


async def test_a_job_goes_in_by_http_and_its_result_comes_out_as_a_signed_webhook(
    stack: Stack, receiver: Receiver
) -> None:
    _, key = await stack.tenant("path-http")
    async with stack.client(key) as client:
        secret = await endpoint(client, receiver.url("/http"))
        submitted = await client.submit("echo", {"hello": "world"}, metadata={"order": 7})
        job = await client.wait(submitted.id, timeout=_PATIENCE_SECONDS)
    (webhook,) = await receiver.until("/http", 1)
    body = webhook.verified(secret)

    assert (job.status, job.result, job.attempt) == ("succeeded", {"hello": "world"}, 1)
    assert body["type"] == "job.succeeded"
    assert body["data"]["id"] == str(submitted.id)
    assert body["data"]["result"] == {"hello": "world"}
    assert body["data"]["metadata"] == {"order": 7}
    assert webhook.headers["x-signature"].startswith("sha256=")


async def test_a_job_goes_in_by_kafka_and_its_result_comes_out_as_a_signed_webhook(
    stack: Stack, receiver: Receiver
) -> None:
    tenant, key = await stack.tenant("path-kafka")
    async with stack.client(key) as client:
        secret = await endpoint(client, receiver.url("/kafka"))
        async with Producer(stack.told["kafka"]) as producer:
            value = json.dumps({"type": "echo", "payload": [1, 2, 3]}).encode()
            headers = [("authorization", f"Bearer {key}".encode()), ("idempotency-key", b"first")]
            await producer.send(topics.INTAKE.name, [(tenant.encode(), value, headers)] * 2)
        (webhook,) = await receiver.until("/kafka", 1)
        jobs = [job async for job in client.list()]

    assert webhook.verified(secret)["data"]["result"] == [1, 2, 3]
    assert len(jobs) == 1


async def test_a_job_that_fails_three_times_with_backoff_then_succeeds(stack: Stack, receiver: Receiver) -> None:
    _, key = await stack.tenant("path-retry")
    async with stack.client(key) as client:
        secret = await endpoint(client, receiver.url("/retry"))
        submitted = await client.submit("fail", {"times": 3, "error": "retryable"}, max_attempts=4, retry=FAST)
        job = await client.wait(submitted.id, timeout=_PATIENCE_SECONDS)
        timeline = await client.attempts(submitted.id)
    (webhook,) = await receiver.until("/retry", 1)
    starts = [attempt.started_at for attempt in timeline.items if attempt.started_at is not None]

    assert (job.status, job.attempt) == ("succeeded", 4)
    assert webhook.verified(secret)["type"] == "job.succeeded"
    gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(starts)]
    assert [gap >= wait for gap, wait in zip(gaps, (0.3, 0.6, 1.2), strict=True)] == [True] * 3


async def test_a_permanent_error_becomes_a_dead_letter_and_its_redrive_a_new_job(
    stack: Stack, receiver: Receiver
) -> None:
    _, key = await stack.tenant("path-dlq")
    async with stack.client(key) as client:
        secret = await endpoint(client, receiver.url("/dlq"))
        submitted = await client.submit("fail", {"times": 1, "error": "permanent"})
        failed = await client.wait(submitted.id, timeout=_PATIENCE_SECONDS)
        letters = [letter async for letter in client.dlq(kind="jobs")]
        again = await client.retry(submitted.id)
        second = await client.wait(again.id, timeout=_PATIENCE_SECONDS)
        left = [letter.id async for letter in client.dlq(kind="jobs")]
    webhooks = await receiver.until("/dlq", 2)

    assert (failed.status, [str(letter.id) for letter in letters]) == ("failed", [str(submitted.id)])
    assert again.id != submitted.id
    assert second.redrive_of == submitted.id
    assert submitted.id not in left
    assert {webhook.verified(secret)["type"] for webhook in webhooks} == {"job.failed"}


async def test_an_endpoint_that_fails_is_called_again_with_the_same_id_and_then_redriven(
    stack: Stack, receiver: Receiver
) -> None:
    _, key = await stack.tenant("path-delivery")
    url = receiver.script("/flaky", 500, 500, 500, 204)
    async with stack.client(key) as client:
        secret = await endpoint(client, url)
        await client.submit("echo", 1)
        await receiver.until("/flaky", 3)

        async def dead() -> list[str]:
            return [str(letter.id) async for letter in client.dlq(kind="deliveries")]

        (letter,) = await eventually(dead, until=lambda letters: len(letters) == 1)
        await client.redrive([letter], kind="deliveries")
        calls = await receiver.until("/flaky", 4)

    assert len({call.webhook_id for call in calls}) == 1
    assert all(call.verified(secret) for call in calls)


async def test_a_hundred_equal_posts_at_once_make_one_job(stack: Stack) -> None:
    _, key = await stack.tenant("path-idempotency")
    async with stack.client(key) as client:
        answers = await asyncio.gather(*[client.submit("echo", {"n": 1}, idempotency_key="once") for _ in range(100)])
        jobs = [job async for job in client.list()]

    assert len({answer.id for answer in answers}) == 1
    assert len(jobs) == 1


async def test_a_running_job_is_cancelled_and_so_is_a_scheduled_one(stack: Stack) -> None:
    _, key = await stack.tenant("path-cancel")
    async with stack.client(key) as client:
        running = await client.submit("sleep", {"seconds": 600})
        later = await client.submit("echo", 1, delay_seconds=3600)

        async def current() -> Job:
            return await client.get(running.id)

        await eventually(current, until=lambda job: job.status == "running")
        await client.cancel(running.id)
        await client.cancel(later.id)
        ended = [await client.wait(job.id, timeout=_PATIENCE_SECONDS) for job in (running, later)]

    assert [job.status for job in ended] == ["cancelled", "cancelled"]


async def test_a_delayed_job_never_runs_early(stack: Stack) -> None:
    _, key = await stack.tenant("path-delay")
    async with stack.client(key) as client:
        submitted = await client.submit("echo", 1, delay_seconds=1.5)
        job = await client.wait(submitted.id, timeout=_PATIENCE_SECONDS)

    assert job.started_at is not None
    assert job.run_at is not None
    assert job.started_at >= job.run_at


async def test_a_tenant_never_has_more_jobs_running_than_its_limit(stack: Stack) -> None:
    _, key = await stack.tenant("path-limit", concurrency=3)
    async with stack.client(key) as client:
        verdicts = await client.submit_batch([{"type": "sleep", "payload": {"seconds": 0.3}} for _ in range(15)])
        jobs = [await client.wait(each.id, timeout=_PATIENCE_SECONDS) for each in verdicts if each.id is not None]

    assert [job.status for job in jobs] == ["succeeded"] * 15
    # A place is free from some time after `finished_at` on. An end before a start at the same time.
    moments = [(at, by) for job in jobs for at, by in ((job.started_at, 1), (job.finished_at, -1)) if at is not None]
    assert max(itertools.accumulate(by for _, by in sorted(moments))) == 3


async def test_one_tenant_never_sees_another_ones_job(stack: Stack) -> None:
    _, ours = await stack.tenant("path-ours")
    _, theirs = await stack.tenant("path-theirs")
    async with stack.client(ours) as us, stack.client(theirs) as them:
        mine = await us.submit("echo", 1)
        listed = [job.id async for job in them.list()]
        refusals = []
        for job_id in (mine.id, uuid.uuid4()):
            with pytest.raises(ProblemError) as refused:
                await them.get(job_id)
            refusals.append((refused.value.problem.status, refused.value.problem.code))

    assert listed == []
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == 404
