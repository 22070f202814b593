"""The built-in handlers, run as a worker runs them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp.web
import pytest

from barnabas.domain.attempts import Outcome, Raised, Succeeded
from barnabas.domain.targets import BadTargetError
from barnabas.sdk.builtin import builtin_app
from barnabas.sdk.outgoing import BODY_BYTES_MAX, GuardedResolver
from barnabas.sdk.running import run_attempt
from barnabas.sdk.threads import HandlerThreads
from tests.unit.sdk.builders import context, raised


async def ran(job_type: str, payload: Any, *, attempt: int = 1, losses: int = 0, allow_private: bool = True) -> Outcome:
    threads = HandlerThreads(1)
    handler = builtin_app(allow_private_targets=allow_private).handlers[job_type]
    raw = json.dumps(payload).encode()
    try:
        return (await run_attempt(handler, raw, context(attempt=attempt, losses=losses), threads=threads)).outcome
    finally:
        threads.shutdown()


def result(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result or b"null")


@pytest.mark.parametrize("payload", [None, 1, "text", {"nested": [1, {"a": None}]}])
async def test_echo_returns_its_payload(payload: Any) -> None:
    assert result(await ran("echo", payload)) == payload


async def test_sleep_sleeps() -> None:
    before = asyncio.get_running_loop().time()

    assert result(await ran("sleep", {"seconds": 0.05})) == {"slept_seconds": 0.05}
    assert asyncio.get_running_loop().time() - before >= 0.05


@pytest.mark.parametrize("payload", [{"seconds": -1}, {"seconds": "soon"}, {}, None, {"seconds": 1, "minutes": 1}])
async def test_sleep_refuses_what_is_no_wait(payload: Any) -> None:
    assert raised(await ran("sleep", payload)).code == "payload_invalid"


async def test_fail_fails_its_first_runs_and_then_succeeds() -> None:
    outcomes = [await ran("fail", {"times": 2}, attempt=attempt) for attempt in (1, 2, 3)]

    assert [type(outcome) for outcome in outcomes] == [Raised, Raised, Succeeded]
    assert raised(outcomes[0]).retryable
    assert raised(outcomes[0]).code == "told_to_fail"


async def test_fail_counts_losses_as_runs() -> None:
    assert isinstance(await ran("fail", {"times": 2, "error": "crash"}, attempt=1, losses=2), Succeeded)


async def test_fail_may_be_permanent() -> None:
    assert not raised(await ran("fail", {"error": "permanent"}, attempt=100)).retryable


@asynccontextmanager
async def target() -> AsyncIterator[str]:
    async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        match request.path:
            case "/echo":
                seen = {"method": request.method, "body": await request.text(), "host": request.headers["Host"]}
                return aiohttp.web.json_response({**seen, "type": request.content_type})
            case "/busy":
                return aiohttp.web.Response(status=503, headers={"Retry-After": "7"})
            case "/redirect":
                return aiohttp.web.Response(status=302, headers={"Location": "/echo"})
            case "/long":
                return aiohttp.web.Response(body=b"x" * (BODY_BYTES_MAX + 1))
            case "/slow":
                await asyncio.sleep(5)
        return aiohttp.web.Response(status=404, text="no such place")

    runner = aiohttp.web.AppRunner(_app(answer), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _app(answer: Any) -> aiohttp.web.Application:
    app = aiohttp.web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


async def test_http_request_sends_its_body_as_json_and_its_own_host() -> None:
    async with target() as url:
        payload = {"url": f"{url}/echo", "method": "POST", "body": {"a": 1}, "headers": {"Host": "evil.example"}}
        answer = result(await ran("http_request", payload))

    assert answer["status"] == 200
    assert answer["content_type"].startswith("application/json")
    assert json.loads(answer["body"]) == {
        "method": "POST",
        "body": '{"a":1}',
        "host": url.removeprefix("http://"),
        "type": "application/json",
    }


async def test_http_request_returns_any_plain_answer_and_follows_no_redirect() -> None:
    async with target() as url:
        missing = result(await ran("http_request", {"url": f"{url}/nowhere"}))
        moved = result(await ran("http_request", {"url": f"{url}/redirect"}))

    assert (missing["status"], missing["body"]) == (404, "no such place")
    assert moved["status"] == 302


async def test_http_request_keeps_the_first_64_kib_of_an_answer() -> None:
    async with target() as url:
        answer = result(await ran("http_request", {"url": f"{url}/long"}))

    assert (len(answer["body"]), answer["is_truncated"]) == (BODY_BYTES_MAX, True)


async def test_http_request_tries_again_when_the_target_asks_for_patience_or_is_silent() -> None:
    async with target() as url:
        busy = raised(await ran("http_request", {"url": f"{url}/busy"}))
        slow = raised(await ran("http_request", {"url": f"{url}/slow", "timeout_seconds": 0.05}))
    gone = raised(await ran("http_request", {"url": f"{url}/echo"}))

    assert busy == Raised("http_status", "the target answered 503", retryable=True, retry_after=7.0)
    assert (slow.code, slow.retryable) == ("http_timeout", True)
    assert (gone.code, gone.retryable) == ("http_unreachable", True)
    assert "127.0.0.1" not in gone.message


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://localhost/", "http://169.254.169.254/latest", "ftp://example.com/", "nonsense"]
)
async def test_http_request_refuses_targets_that_are_not_public_for_good(url: str) -> None:
    outcome = raised(await ran("http_request", {"url": url}, allow_private=False))

    assert (outcome.code, outcome.retryable) == ("target_refused", False)


async def test_a_name_with_a_private_address_is_refused_when_it_is_resolved() -> None:
    with pytest.raises(BadTargetError):
        await GuardedResolver(allow_private=False).resolve("localhost", 80)

    assert await GuardedResolver(allow_private=True).resolve("localhost", 80)


async def test_a_header_that_smuggles_is_no_payload() -> None:
    payload = {"url": "http://example.com/", "headers": {"X-A": "1\r\nX-B: 2"}}

    assert raised(await ran("http_request", payload)).code == "payload_invalid"
