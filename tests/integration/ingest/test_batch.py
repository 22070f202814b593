"""Batches: one verdict each, in order, whatever stands beside it."""

import json
from typing import Any
from uuid import UUID

from barnabas.postgres.submissions import Submission
from barnabas_ingest.lane import Parcel
from tests.integration.ingest.support import Caller, RunningIngest
from tests.support.world import World, new_id

NDJSON = {"Content-Type": "application/x-ndjson"}


def _verdicts(items: list[dict[str, Any]]) -> list[str]:
    return [item["verdict"] for item in items]


async def test_one_bad_job_harms_no_other(tenant: Caller, module_world: World) -> None:
    jobs = [{"type": "echo", "payload": number} for number in range(5)]
    jobs[2]["priority"] = 9

    reply = await tenant.post("/v1/jobs/batch", jobs)

    assert reply.status == 200
    items = reply.body["items"]
    assert _verdicts(items) == ["accepted", "accepted", "rejected", "accepted", "accepted"]
    assert items[2]["problem"]["errors"][0]["pointer"] == "/priority"
    for number in (0, 1, 3, 4):
        stored = await module_world.superuser.fetchval(
            "SELECT payload FROM job_payloads WHERE job_id = $1", UUID(items[number]["id"])
        )
        assert json.loads(stored) == number


async def test_a_job_that_cannot_be_compared_harms_no_other(tenant: Caller) -> None:
    jobs = b'[{"type":"echo","payload":1,"idempotency_key":"a"},{"type":"echo","payload":1e999,"idempotency_key":"b"}]'

    reply = await tenant.post("/v1/jobs/batch", raw=jobs)

    assert (reply.status, _verdicts(reply.body["items"])) == (200, ["accepted", "rejected"])
    assert reply.body["items"][1]["problem"]["code"] == "validation_failed"


async def test_lines_are_jobs_and_a_bad_line_is_one_verdict(tenant: Caller) -> None:
    lines = b'{"type":"echo","payload":1}\r\nnope\n\n  \n{"type":"echo","payload":"\\ud800"}\n' + (
        b'{"type":"echo","payload":' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"type":"echo","payload":2}'
    )

    reply = await tenant.post("/v1/jobs/batch", raw=lines, headers=NDJSON)

    items = reply.body["items"]
    assert _verdicts(items) == ["accepted", "rejected", "rejected", "rejected", "accepted"]
    assert [item["problem"]["code"] for item in items[1:4]] == [
        "malformed_json",
        "validation_failed",
        "validation_failed",
    ]


async def test_ten_thousand_jobs_go_in_at_once_and_keep_their_order(tenant: Caller, module_world: World) -> None:
    jobs = [{"type": "echo", "payload": number, "delay_seconds": 60 * (number % 2)} for number in range(10_000)]

    reply = await tenant.post("/v1/jobs/batch", jobs)

    items = reply.body["items"]
    assert len(items) == 10_000
    assert [item["status"] for item in items[:4]] == ["queued", "scheduled", "queued", "scheduled"]
    stored = await module_world.superuser.fetch(
        "SELECT job_id, payload FROM job_payloads WHERE tenant_id = $1", tenant.tenant_id
    )
    payloads = {str(row["job_id"]): int(row["payload"]) for row in stored}
    assert [payloads[item["id"]] for item in items] == list(range(10_000))


async def test_ten_thousand_and_one_are_refused_as_a_whole(tenant: Caller) -> None:
    reply = await tenant.post("/v1/jobs/batch", [{"type": "echo", "payload": 1}] * 10_001)

    assert reply.status == 422
    assert (await tenant.get("/v1/jobs")).body["items"] == []


async def test_keys_work_in_batches_as_in_the_header(tenant: Caller) -> None:
    single = await tenant.post("/v1/jobs", {"type": "echo", "payload": 1}, headers={"Idempotency-Key": "a"})
    batch = [
        {"type": "echo", "payload": 1, "idempotency_key": "a"},
        {"type": "echo", "payload": 2, "idempotency_key": "a"},
        {"type": "echo", "payload": 3, "idempotency_key": "b"},
        {"type": "echo", "payload": 3, "idempotency_key": "b"},
        {"type": "echo", "payload": 4},
    ]

    first = (await tenant.post("/v1/jobs/batch", batch)).body["items"]
    again = (await tenant.post("/v1/jobs/batch", batch)).body["items"]

    assert _verdicts(first) == ["replayed", "rejected", "accepted", "replayed", "accepted"]
    assert first[0]["id"] == single.body["id"]
    assert first[1]["problem"]["code"] == "idempotency_key_reused"
    assert first[2]["id"] == first[3]["id"]
    assert _verdicts(again) == ["replayed", "rejected", "replayed", "replayed", "accepted"]
    assert [item.get("id") for item in again[:4]] == [item.get("id") for item in first[:4]]


async def test_a_row_that_postgres_refuses_fails_alone(ingest: RunningIngest, module_world: World) -> None:
    # Nothing that passes validation is refused by Postgres, so this hands rows to the lane itself.
    assert ingest.resources is not None
    tenant = await ingest.tenant()
    assert tenant.tenant_id is not None
    type_id = await module_world.type_id("echo")
    rows = [
        Submission(tenant.tenant_id, new_id(), type_id, 1, 0, None, None, None, b"1", None, None, None)
        for _ in range(64)
    ]
    rows[17] = rows[17]._replace(job_id=rows[3].job_id)
    rows[40] = rows[40]._replace(priority=7)
    parcel = Parcel(rows)

    await ingest.resources.plain.store(parcel)

    assert {17, 40} == set(parcel.failures)
    assert {failure.code for failure in parcel.failures.values()} == {"unstorable"}
    assert (
        await module_world.superuser.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = $1", tenant.tenant_id) == 62
    )


async def test_what_is_no_batch_is_refused(tenant: Caller) -> None:
    not_json = await tenant.post("/v1/jobs/batch", raw=b"[")
    no_array = await tenant.post("/v1/jobs/batch", {"type": "echo", "payload": 1})
    no_kind = await tenant.post("/v1/jobs/batch", raw=b"[]", headers={"Content-Type": "text/csv"})
    nothing = await tenant.post("/v1/jobs/batch", [])

    assert (not_json.status, not_json.code) == (400, "malformed_json")
    assert (no_array.status, no_array.code) == (422, "validation_failed")
    assert (no_kind.status, no_kind.code) == (415, "unsupported_media_type")
    assert (nothing.status, nothing.body) == (200, {"items": []})


async def test_a_batch_above_sixteen_mebibytes_is_413(tenant: Caller) -> None:
    reply = await tenant.post("/v1/jobs/batch", raw=b" " * (16 * 1024 * 1024 + 1))

    assert (reply.status, reply.code) == (413, "too_large")


async def test_a_job_above_a_mebibyte_is_refused_in_a_batch_too(tenant: Caller) -> None:
    reply = await tenant.post(
        "/v1/jobs/batch", [{"type": "echo", "payload": "x" * 1_100_000}, {"type": "echo", "payload": "x" * 1_000_000}]
    )

    assert _verdicts(reply.body["items"]) == ["rejected", "accepted"]
    assert reply.body["items"][0]["problem"]["code"] == "too_large"
