"""The limit of a tenant's submissions: exact over processes and ways in, and what is said to whoever is above it."""

import asyncio
import json
import math
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from barnabas.contract.topics import INTAKE_REJECTED, Topic
from barnabas.kafka.admin import Admin
from tests.integration.ingest.support import Caller, Reply, RunningIngest, running_ingest
from tests.integration.ingest.test_intake import Member
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.world import World


@pytest.fixture
async def limited(ingest: RunningIngest, module_world: World) -> Caller:
    """A tenant with ten a minute."""
    tenant = await ingest.tenant()
    await limit(module_world, tenant, 10)
    return tenant


async def limit(world: World, tenant: Caller, allowed: int, *, window_seconds: float = 60) -> None:
    await world.superuser.execute(
        "INSERT INTO gates (tenant_id, kind, starts_allowed, window_seconds) VALUES ($1, 3, $2, $3)"
        " ON CONFLICT ON CONSTRAINT gates_pkey DO UPDATE SET starts_allowed = $2, window_seconds = $3",
        tenant.tenant_id,
        allowed,
        window_seconds,
    )


async def stored(world: World, tenant: Caller) -> int:
    return int(await world.superuser.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = $1", tenant.tenant_id))


async def age_log(world: World, tenant: Caller, seconds: float) -> None:
    """As if what was submitted had been submitted that much earlier."""
    await world.superuser.execute(
        "UPDATE gates SET log_at = (SELECT array_agg(at - make_interval(secs => $2) ORDER BY place)"
        " FROM unnest(log_at) WITH ORDINALITY AS log (at, place)) WHERE tenant_id = $1 AND kind = 3",
        tenant.tenant_id,
        seconds,
    )


async def until_free(world: World, tenant: Caller, *, place: int = 1) -> float:
    """In how many seconds the submission at that place of the log, the oldest being 1, is a minute old."""
    return float(
        await world.superuser.fetchval(
            "SELECT extract(epoch FROM log_at[$2] + interval '60 seconds' - clock_timestamp()) FROM gates"
            " WHERE tenant_id = $1 AND kind = 3",
            tenant.tenant_id,
            place,
        )
    )


async def refusal(world: World, tenant: Caller, *, place: int = 1) -> int:
    """Be refused a job, and hear when to come back: when that place of the log is free, to the second."""
    latest = await until_free(world, tenant, place=place)
    refused = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1})
    earliest = await until_free(world, tenant, place=place)

    assert refused.status == 429
    seconds = int(refused.headers["Retry-After"])
    assert math.ceil(earliest) <= seconds <= math.ceil(latest)
    return seconds


async def submit_all(tenant: Caller, count: int, **more: Any) -> list[Reply]:
    return [await tenant.post("/v1/jobs", {"type": "echo", "payload": n}, **more) for n in range(count)]


async def test_ten_a_minute_are_accepted_and_the_eleventh_is_told_when_to_come_back(
    limited: Caller, module_world: World
) -> None:
    accepted = await submit_all(limited, 10)
    refused = await limited.post("/v1/jobs", {"type": "echo", "payload": 11})

    assert [reply.status for reply in accepted] == [202] * 10
    assert [reply.headers["RateLimit"].partition(";t=")[0] for reply in accepted] == [
        f'"submits";r={left}' for left in range(9, -1, -1)
    ]
    assert {reply.headers["RateLimit-Policy"] for reply in accepted} == {'"submits";q=10;w=60'}
    assert (refused.status, refused.code, refused.body["retryable"]) == (429, "rate_limited", True)
    assert refused.headers["Content-Type"] == "application/problem+json"
    seconds = int(refused.headers["Retry-After"])
    assert 0 < seconds <= 60
    assert refused.headers["RateLimit"] == f'"submits";r=0;t={seconds}'
    assert refused.headers["RateLimit-Policy"] == '"submits";q=10;w=60'
    assert await stored(module_world, limited) == 10


async def test_the_time_it_names_is_true(limited: Caller, module_world: World) -> None:
    await submit_all(limited, 10)
    await refusal(module_world, limited)
    await age_log(module_world, limited, 25)
    seconds = await refusal(module_world, limited)

    await age_log(module_world, limited, seconds)
    in_time = await limited.post("/v1/jobs", {"type": "echo", "payload": 1})

    assert in_time.status == 202


async def test_a_lowered_limit_names_the_time_when_enough_are_over(limited: Caller, module_world: World) -> None:
    for _ in range(4):
        await limited.post("/v1/jobs", {"type": "echo", "payload": 1})
        await age_log(module_world, limited, 10)
    await limit(module_world, limited, 2)

    # They are 40, 30, 20 and 10 seconds old: when the third is over, one is left.
    assert 0 < await refusal(module_world, limited, place=3) <= 40


async def test_a_tenant_without_a_limit_is_told_of_none(tenant: Caller) -> None:
    reply = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1})

    assert reply.status == 202
    assert not [name for name in reply.headers if name.lower().startswith("ratelimit")]


async def test_over_two_processes_and_both_lanes_exactly_the_limit_is_stored(
    ingest: RunningIngest, limited: Caller, module_world: World
) -> None:
    async with running_ingest(module_world.kafka, module_world.logins) as other:
        there = Caller(limited._http, other.url, limited.key, limited.tenant_id)

        async def one(number: int) -> int:
            caller = (limited, there)[number % 2]
            headers = {"Idempotency-Key": f"k{number}"} if number % 4 < 2 else {}
            return (await caller.post("/v1/jobs", {"type": "echo", "payload": number}, headers=headers)).status

        answers = await asyncio.gather(*[one(number) for number in range(60)])

    assert sorted(answers) == [202] * 10 + [429] * 50
    assert await stored(module_world, limited) == 10


async def test_replays_are_answered_above_the_limit_and_do_not_count(limited: Caller, module_world: World) -> None:
    key = {"Idempotency-Key": "once"}
    first = (await limited.post("/v1/jobs", {"type": "echo", "payload": 0}, headers=key)).body["id"]
    replays = [await limited.post("/v1/jobs", {"type": "echo", "payload": 0}, headers=key) for _ in range(20)]
    rest = await submit_all(limited, 10)
    above = await limited.post("/v1/jobs", {"type": "echo", "payload": 0}, headers=key)

    assert {(reply.status, reply.body["id"]) for reply in [*replays, above]} == {(200, first)}
    assert [reply.status for reply in rest] == [202] * 9 + [429]


async def test_a_refused_key_is_free_again(limited: Caller, module_world: World) -> None:
    await submit_all(limited, 10)
    key = {"Idempotency-Key": "later"}

    refused = await limited.post("/v1/jobs", {"type": "echo", "payload": 0}, headers=key)
    await age_log(module_world, limited, 60)
    accepted = await limited.post("/v1/jobs", {"type": "echo", "payload": 0}, headers=key)

    assert (refused.status, accepted.status) == (429, 202)


async def test_of_a_batch_the_first_are_accepted_and_each_other_has_its_verdict(
    limited: Caller, module_world: World
) -> None:
    jobs = [{"type": "echo", "payload": n} for n in range(14)]
    jobs[3]["type"] = ""
    jobs[13]["idempotency_key"] = jobs[2]["idempotency_key"] = "same"
    jobs[13]["payload"] = 2

    reply = await limited.post("/v1/jobs/batch", jobs)
    again = await limited.post("/v1/jobs/batch", [{"type": "echo", "payload": n} for n in range(3)])

    assert reply.status == 200
    verdicts = [
        one["verdict"] if one["verdict"] != "rejected" else one["problem"]["code"] for one in reply.body["items"]
    ]
    # Keyed and plain jobs travel in lanes of their own: it isn't said which ten are stored.
    assert verdicts[3] == "validation_failed"
    assert verdicts.count("accepted") == 10
    assert verdicts.count("rate_limited") + verdicts.count("replayed") == 3
    assert again.status == 200
    assert {one["problem"]["code"] for one in again.body["items"]} == {"rate_limited"}
    assert {one["problem"]["retryable"] for one in again.body["items"]} == {True}
    assert again.headers["RateLimit"].startswith('"submits";r=0;t=')
    assert await stored(module_world, limited) == 10


async def test_a_limit_above_a_hundred_holds_too(limited: Caller, module_world: World) -> None:
    await limit(module_world, limited, 250)

    reply = await limited.post("/v1/jobs/batch", [{"type": "echo", "payload": n} for n in range(400)])

    verdicts = [one["verdict"] for one in reply.body["items"]]
    assert verdicts == ["accepted"] * 250 + ["rejected"] * 150
    assert await stored(module_world, limited) == 250


async def test_records_above_the_limit_are_rejected_as_retryable_and_the_partition_goes_on(
    ingest: RunningIngest, limited: Caller, tenant: Caller, module_world: World
) -> None:
    above = {10, 11, 12}
    async with Admin(module_world.kafka) as admin:
        topic = Topic(f"barnabas.intake.test-{uuid.uuid4().hex}", "tenant", 3_600_000, partitions=1)
        await admin.ensure_topics(topics=[topic])
        async with TopicReader(module_world.kafka, INTAKE_REJECTED.name) as rejected:
            await send(module_world, topic.name, limited, 13)
            await send(module_world, topic.name, tenant, 1)
            async with Member(ingest, admin, topic.name, topic.name).running():
                await eventually(lambda: stored(module_world, tenant), until=lambda count: count == 1)
            mine = await eventually(
                lambda: of_tenant(rejected.records, limited), until=lambda found: payloads(found) >= above
            )

    assert await stored(module_world, limited) == 10
    assert payloads(mine) == above
    problems = [json.loads(dict(record.headers)["barnabas-problem"]) for record in mine]
    assert {(problem["code"], problem["retryable"]) for problem in problems} == {("rate_limited", True)}


def payloads(records: Sequence[Any]) -> set[int]:
    """Each once: a record is rejected at least once."""
    return {json.loads(record.value)["payload"] for record in records}


def of_tenant(records: Sequence[Any], tenant: Caller) -> list[Any]:
    return [record for record in records if record.key == str(tenant.tenant_id).encode()]


async def send(world: World, topic: str, tenant: Caller, count: int) -> None:
    headers = [("authorization", f"Bearer {tenant.key}".encode())]
    bodies = [json.dumps({"type": "echo", "payload": n}).encode() for n in range(count)]
    await world.producer.send(topic, [(str(tenant.tenant_id).encode(), body, headers) for body in bodies])
