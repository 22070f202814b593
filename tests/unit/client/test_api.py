"""Both clients against a real socket: what they send, and how they read answers."""

import inspect
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from pydantic import BaseModel

from barnabas.client import models
from barnabas.client.api import AsyncClient, Client
from barnabas.client.errors import (
    ApiUnreachableError,
    JobNotEndedError,
    ProblemError,
    RejectedProblemError,
    UnreadableAnswerError,
)
from barnabas.client.models import NewJob
from barnabas.contract import explain as explain_contract
from barnabas.contract import http, problems
from barnabas.contract import jobs as job_contract
from barnabas.contract import limits as limits_contract
from barnabas.contract.intake import read_job
from barnabas.domain.backoff import RetryPolicy
from barnabas.errors import RejectedError
from tests.unit.client.caller import JOB_ID, KEY, Caller, job, problem
from tests.unit.client.server import HANG_UP, Reply, Script


class Order(BaseModel):
    amount: int
    at: datetime


async def test_a_submission_carries_all_that_was_asked_for(server: Script, call: Caller) -> None:
    server.will(Reply(202, job()))
    at = datetime(2030, 1, 1, tzinfo=UTC)

    submitted = await call(
        "submit",
        "scoring",
        Order(amount=7, at=at),
        idempotency_key="order-7",
        priority="high",
        run_at=at,
        max_attempts=3,
        timeout_seconds=1.5,
        retry=RetryPolicy(base_seconds=1),
        metadata={"team": "risk"},
    )
    asked = server.asked[0]

    assert (submitted.id, submitted.job.status, submitted.is_replayed) == (JOB_ID, "queued", False)
    assert (asked.method, asked.path) == ("POST", "/v1/jobs")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["idempotency-key"] == "order-7"
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {
        "type": "scoring",
        "payload": {"amount": 7, "at": "2030-01-01T00:00:00Z"},
        "priority": "high",
        "run_at": "2030-01-01T00:00:00Z",
        "max_attempts": 3,
        "timeout_seconds": 1.5,
        "retry": {"base_seconds": 1, "factor": 2.0, "cap_seconds": 3600.0, "jitter": "none"},
        "metadata": {"team": "risk"},
    }
    assert read_job(asked.body).priority == 2


async def test_a_replayed_submission_says_so(server: Script, call: Caller) -> None:
    server.will(Reply(200, job("succeeded"), {"Idempotent-Replayed": "true"}))

    assert (await call("submit", "echo", None, idempotency_key="k")).is_replayed


@pytest.mark.parametrize("payload", [float("nan"), {"x": float("inf")}, object(), datetime])
async def test_what_json_lacks_is_refused_before_anything_is_sent(server: Script, call: Caller, payload: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        await call("submit", "echo", payload)
    with pytest.raises(ValueError, match="time zone"):
        await call("submit", "echo", run_at=datetime(2030, 1, 1))  # noqa: DTZ001 - the mistake under test

    assert server.asked == []


async def test_a_problem_becomes_an_error_that_carries_the_document(server: Script, call: Caller) -> None:
    document = {
        **problem("validation_failed", 422),
        "detail": "2 values are wrong",
        "errors": [{"pointer": "/type", "detail": "too short"}],
        "added_later": True,
    }
    server.will(Reply(422, document))

    with pytest.raises(RejectedProblemError, match="2 values are wrong") as caught:
        await call("submit", "")
    error = caught.value

    assert isinstance(error, ProblemError)
    assert isinstance(error, RejectedError)
    assert error.code == "validation_failed"
    assert error.problem.status == 422
    assert error.problem.errors[0].pointer == "/type"
    assert len(server.asked) == 1


async def test_an_answer_of_something_else_is_no_job(server: Script, call: Caller) -> None:
    server.will(Reply(200, b"<html>hello</html>"), Reply(404, b"<html>lost</html>"), Reply(302, b""))

    with pytest.raises(UnreadableAnswerError):
        await call("get", JOB_ID)
    with pytest.raises(RejectedProblemError) as caught:
        await call("get", JOB_ID)
    assert caught.value.code == "http_404"
    with pytest.raises(RejectedProblemError):
        await call("get", JOB_ID)


async def test_waiting_ends_with_the_job(server: Script, call: Caller) -> None:
    finished = job("failed", error={"code": "boom", "message": "x", "retryable": False}, attempt=3)
    server.will(Reply(200, job("queued")), Reply(200, job("running")), Reply(200, finished))

    ended = await call("wait", JOB_ID, timeout=30)

    assert ended.is_terminal
    assert ended.error == models.JobError("boom", "x", retryable=False)
    assert all(asked.path.startswith(f"/v1/jobs/{JOB_ID}?wait=") for asked in server.asked)


async def test_waiting_has_an_end_that_names_the_job(server: Script, call: Caller) -> None:
    server.will(*[Reply(200, job("running"))] * 9)

    with pytest.raises(JobNotEndedError) as caught:
        await call("wait", str(JOB_ID), timeout=0.3)

    assert caught.value.job.status == "running"
    # Answers that come at once are no reason to ask in a tight loop.
    assert len(server.asked) <= 3


async def test_a_list_is_walked_page_by_page(server: Script, call: Caller) -> None:
    ids = [str(uuid4()) for _ in range(3)]
    server.will(
        Reply(
            200,
            {"items": [{"id": ids[0], "status": "failed"}, {"id": ids[1], "status": "failed"}], "next_cursor": "a/b="},
        ),
        Reply(200, {"items": [{"id": ids[2], "status": "failed"}], "next_cursor": None}),
    )

    found = await call("list", status="failed", job_type="echo", limit=2)

    assert [str(each.id) for each in found] == ids
    assert server.asked[0].path == "/v1/jobs?status=failed&type=echo&limit=2"
    assert server.asked[1].path == "/v1/jobs?status=failed&type=echo&limit=2&cursor=a%2Fb%3D"


async def test_a_batch_is_cut_and_its_verdicts_stay_in_order(
    server: Script, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barnabas.client.calls.BATCH_JOBS_MAX", 2)
    server.will(
        Reply(200, {"items": [{"verdict": "accepted", "id": str(JOB_ID), "status": "queued"}] * 2}),
        HANG_UP,
        Reply(200, {"items": [{"verdict": "rejected", "problem": problem("validation_failed", 422)}]}),
    )

    verdicts = await call(
        "submit_batch",
        [NewJob(type="a", payload=1), {"type": "b", "payload": 2}, NewJob(type="c", idempotency_key="k")],
    )

    assert [each.verdict for each in verdicts] == ["accepted", "accepted", "rejected"]
    assert verdicts[2].problem.code == "validation_failed"
    assert [len(asked.json) for asked in server.asked] == [2, 1, 1]
    assert server.asked[2].json == [{"type": "c", "idempotency_key": "k", "payload": None}]


async def test_a_batch_with_one_job_without_a_key_is_not_repeated(server: Script, call: Caller) -> None:
    server.will(HANG_UP)

    with pytest.raises(ApiUnreachableError):
        await call("submit_batch", [NewJob(type="a", idempotency_key="k"), NewJob(type="b")])

    assert len(server.asked) == 1
    assert await call("submit_batch", []) == []


async def test_every_other_call_goes_where_the_design_says(server: Script, call: Caller) -> None:
    empty = Reply(200, {"items": [], "next_cursor": None})
    endpoint = {"id": str(JOB_ID), "url": "https://a.example/", "secret": "whsec_hidden", "headers": {"X": "hidden"}}
    key = {"id": str(JOB_ID), "prefix": "bnb_ab", "key": "bnb_hidden", "name": "ci"}
    server.will(
        Reply(200, {"items": [{"kind": "attempt", "attempt": 1, "outcome": "succeeded"}], "deliveries": []}),
        Reply(202, job("cancelled")),
        Reply(202, job(redrive_of=str(JOB_ID))),
        Reply(201, endpoint),
        empty,
        Reply(204, b""),
        empty,
        empty,
        Reply(200, {"matched": 1, "done": 1, "dry_run": False}),
        Reply(201, {"id": str(JOB_ID), "name": "acme"}),
        Reply(201, key),
        Reply(204, b""),
        Reply(200, {"concurrency": 5, "types": {"echo": {"concurrency": 2}}}),
        Reply(200, {"id": str(JOB_ID), "status": "queued", "cause": "new", "message": "So.", "details": {"before": 3}}),
    )

    timeline = await call("attempts", JOB_ID)
    assert (await call("cancel", JOB_ID)).status == "cancelled"
    assert (await call("retry", JOB_ID)).redrive_of == JOB_ID
    made = await call("create_endpoint", "https://a.example/", event_types=["job.failed"])
    await call("endpoints")
    await call("delete_endpoint", JOB_ID)
    await call("deliveries", status="failed", job_id=JOB_ID)
    await call("dlq", kind="deliveries")
    assert (await call("redrive", [JOB_ID])).done == 1
    tenant = await call("create_tenant", "acme")
    new_key = await call("create_key", tenant.id, "ci")
    await call("delete_key", tenant.id, new_key.id)
    limits = await call("set_limits", tenant.id, concurrency=5, types={"echo": models.TypeLimits(concurrency=2)})
    explanation = await call("explain", JOB_ID)

    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("GET", f"/v1/jobs/{JOB_ID}/attempts"),
        ("POST", f"/v1/jobs/{JOB_ID}/cancel"),
        ("POST", f"/v1/jobs/{JOB_ID}/retry"),
        ("POST", "/v1/endpoints"),
        ("GET", "/v1/endpoints"),
        ("DELETE", f"/v1/endpoints/{JOB_ID}"),
        ("GET", f"/v1/deliveries?status=failed&job_id={JOB_ID}"),
        ("GET", "/v1/dlq?kind=deliveries"),
        ("POST", "/v1/dlq/redrive"),
        ("POST", "/v1/admin/tenants"),
        ("POST", f"/v1/admin/tenants/{JOB_ID}/keys"),
        ("DELETE", f"/v1/admin/tenants/{JOB_ID}/keys/{JOB_ID}"),
        ("PUT", f"/v1/admin/tenants/{JOB_ID}/limits"),
        ("GET", f"/v1/jobs/{JOB_ID}/explain"),
    ]
    assert json.loads(server.asked[12].body) == {
        "concurrency": 5,
        "starts_per_minute": None,
        "submits_per_minute": None,
        "weight": 1,
        "types": {"echo": {"concurrency": 2, "starts_per_minute": None}},
    }
    assert (limits.concurrency, limits.types["echo"].concurrency, limits.use.running) == (5, 2, None)
    assert (explanation.cause, explanation.details, explanation.until) == ("new", {"before": 3}, None)
    assert timeline.items[0].outcome == "succeeded"
    assert json.loads(server.asked[3].body) == {"url": "https://a.example/", "event_types": ["job.failed"]}
    assert made.secret == "whsec_hidden"
    assert new_key.key == "bnb_hidden"
    assert "hidden" not in repr(made) + repr(new_key)


async def test_an_id_cannot_lead_to_another_path(server: Script, call: Caller) -> None:
    server.will(Reply(404, problem("not_found", 404)))

    with pytest.raises(RejectedProblemError):
        await call("get", "../admin/tenants?x=")
    with pytest.raises(ValueError, match="missing"):
        await call("get", "")

    assert server.asked[0].path == "/v1/jobs/..%2Fadmin%2Ftenants%3Fx%3D"


async def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    blocking = {name for name in vars(Client) if not name.startswith("_")} - {"close"}
    awaiting = {name for name in vars(AsyncClient) if not name.startswith("_")} - {"aclose"}
    one, other = Client("http://x", KEY), AsyncClient("http://x", KEY)

    assert blocking == awaiting
    for name in blocking:
        ours, theirs = getattr(one, name), getattr(other, name)
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
        assert ours.__doc__
    one.close()
    await other.aclose()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (models.Job, job_contract.JobView),
        (models.JobError, job_contract.JobError),
        (models.Progress, job_contract.JobProgress),
        (models.Problem, problems.Problem),
        (models.FieldError, problems.FieldError),
        (models.Verdict, http.Verdict),
        (models.Attempt, http.AttemptView),
        (models.EndpointCall, http.CallView),
        (models.Delivery, http.DeliveryView),
        (models.Timeline, http.TimelineAnswer),
        (models.DeadLetter, http.DeadLetterView),
        (models.Redriven, http.RedriveAnswer),
        (models.Endpoint, http.EndpointView),
        (models.Tenant, http.TenantView),
        (models.ApiKey, http.KeyView),
        (models.Limits, limits_contract.LimitsView),
        (models.TypeLimits, limits_contract.TypeLimitsView),
        (models.LimitsUse, limits_contract.LimitsUseView),
        (models.TypeUse, limits_contract.TypeUseView),
        (models.Explanation, explain_contract.ExplainView),
    ],
)
def test_the_clients_models_have_the_fields_that_the_api_sends(
    ours: type[msgspec.Struct], theirs: type[msgspec.Struct]
) -> None:
    assert set(ours.__struct_fields__) == set(theirs.__struct_fields__)
