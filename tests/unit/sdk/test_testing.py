"""The helpers for people who test their handlers."""

import time
from typing import Any

import pytest
from pydantic import BaseModel

from barnabas.domain.attempts import Snoozed
from barnabas.domain.backoff import RetryPolicy
from barnabas.domain.jobs import JobState
from barnabas.sdk import App, Context, PermanentError, RetryableError, Snooze
from barnabas.sdk.testing import HandlerFailedError, drain, run, run_async


class Order(BaseModel):
    amount: int


app = App("shop")


@app.handler("price")
async def price(order: Order, ctx: Context) -> dict[str, int]:
    ctx.progress(50, "half")
    return {"total": order.amount * 2}


@app.handler("flaky", max_attempts=4)
def flaky(payload: Any, ctx: Context) -> str:
    if ctx.attempt < 3:
        raise RetryableError("not yet", retry_after=100 if ctx.attempt == 2 else None)
    return "done"


@app.handler("refuses", retry=RetryPolicy(base_seconds=1))
def refuses(payload: Any) -> None:
    raise PermanentError("never")


def test_an_attempt_runs_inline_with_payload_result_and_progress() -> None:
    for payload in (Order(amount=21), {"amount": 21}, b'{"amount": 21}'):
        done = run(app, "price", payload)

        assert done.value == {"total": 42}
        assert [report.percent for report in done.progress] == [50.0]


async def test_it_works_inside_async_tests_too() -> None:
    assert run(app, "price", Order(amount=1)).value == {"total": 2}
    assert (await run_async(app, "price", Order(amount=1))).value == {"total": 2}


def test_a_failed_attempt_has_an_error_and_no_value() -> None:
    done = run(app, "price", {"amount": "much"})

    assert done.error is not None
    assert done.error.code == "payload_invalid"
    with pytest.raises(HandlerFailedError, match="payload_invalid"):
        _ = done.value


def test_a_job_is_drained_through_its_retries_without_waiting() -> None:
    started = time.monotonic()
    job = drain(app, "flaky")

    assert (job.state, job.value) == (JobState.SUCCEEDED, "done")
    assert job.waits_seconds == [30.0, 100.0]
    assert time.monotonic() - started < sum(job.waits_seconds)


def test_draining_ends_where_the_product_would_end() -> None:
    assert drain(app, "refuses").state is JobState.FAILED
    assert len(drain(app, "refuses").attempts) == 1
    assert drain(app, "flaky", max_attempts=2).state is JobState.FAILED


def test_snoozes_are_no_attempts() -> None:
    calls = iter([Snooze(3600), Snooze(60), None])
    sleepy = App("sleepy")
    sleepy.handler("sleepy", max_attempts=1)(lambda payload: next(calls))
    job = drain(sleepy, "sleepy")

    assert job.state is JobState.SUCCEEDED
    assert [each.attempt for each in job.attempts] == [1, 1, 1]
    assert job.attempts[0].outcome == Snoozed(3600)
    assert job.waits_seconds == [3600.0, 60.0]


def test_a_thousand_inline_jobs_take_no_services_and_little_time() -> None:
    started = time.thread_time()
    for number in range(1000):
        assert run(app, "price", {"amount": number}).succeeded

    # A loop is made for each of them: half a second of CPU, on a slow machine a few times that.
    assert time.thread_time() - started < 20


def test_a_missing_handler_names_those_that_exist() -> None:
    with pytest.raises(LookupError, match=r"'prize'.*'price'"):
        run(app, "prize")
