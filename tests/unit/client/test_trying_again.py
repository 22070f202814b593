"""When either client tries again, when it doesn't, and how long it has patience."""

import asyncio
import socket

import pytest

from barnabas.client.errors import ApiUnreachableError, TransientProblemError
from barnabas.client.flows import Retries
from barnabas.errors import TransientError
from tests.unit.client.caller import JOB_ID, QUICK, Caller, job, problem
from tests.unit.client.server import HANG_UP, Reply, Script


async def test_overload_is_transient_and_a_keyed_submission_is_tried_again(server: Script, call: Caller) -> None:
    busy = Reply(503, problem("overloaded", 503, retryable=True))
    server.will(busy, busy, Reply(202, job()))

    assert (await call("submit", "echo", 1, idempotency_key="k")).id == JOB_ID
    assert len({asked.body for asked in server.asked}) == 1
    assert [asked.headers["idempotency-key"] for asked in server.asked] == ["k"] * 3


async def test_a_submission_without_a_key_is_never_sent_twice(server: Script, call: Caller) -> None:
    server.will(Reply(503, problem("overloaded", 503, retryable=True), {"Retry-After": "0"}))
    with pytest.raises(TransientProblemError) as caught:
        await call("submit", "echo", 1)
    server.will(HANG_UP)
    with pytest.raises(ApiUnreachableError):
        await call("submit", "echo", 1)

    assert isinstance(caught.value, TransientError)
    assert len(server.asked) == 2


async def test_a_lost_answer_is_asked_for_again_where_that_is_safe(server: Script, call: Caller) -> None:
    server.will(HANG_UP, Reply(202, job()), HANG_UP, HANG_UP, Reply(200, job("running")))

    assert (await call("submit", "echo", 1, idempotency_key="k")).id == JOB_ID
    assert (await call("get", JOB_ID)).status == "running"
    assert len(server.asked) == 5


async def test_a_rate_limit_is_waited_out_even_without_a_key(server: Script, call: Caller) -> None:
    server.will(Reply(429, problem("rate_limited", 429, retryable=True), {"Retry-After": "1"}), Reply(202, job()))
    started = asyncio.get_running_loop().time()

    assert (await call("submit", "echo", 1)).id == JOB_ID
    assert asyncio.get_running_loop().time() - started >= 1.0


async def test_a_wait_beyond_all_patience_is_left_to_the_caller(server: Script, call: Caller) -> None:
    server.will(Reply(429, problem("quota", 429, retryable=True), {"Retry-After": "3600"}))

    with pytest.raises(TransientProblemError) as caught:
        await call("get", JOB_ID)

    assert caught.value.retry_after_seconds == 3600


async def test_trying_again_has_an_end(server: Script, call: Caller) -> None:
    server.will(*[Reply(503, problem("overloaded", 503, retryable=True))] * 9)

    with pytest.raises(TransientProblemError):
        await call("get", JOB_ID)

    assert len(server.asked) == QUICK.tries_max


async def test_a_connection_that_was_refused_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for kind in ("blocking", "async"):
            caller = Caller(kind, url, Retries(tries_max=2, base_seconds=0.001))
            with pytest.raises(ApiUnreachableError):
                await caller("submit", "echo", 1)
            await caller.close()
