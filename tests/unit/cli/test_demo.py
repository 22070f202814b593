"""The demo's parts: what its receiver believes, what its stages show, and that it shows nothing that isn't so."""

import io
import time
from typing import Any

import httpx
import pytest
from rich.console import Console

from barnabas.cli.demo import DemoFailedError, show
from barnabas.cli.demo_receiver import Receiver, open_receiver
from barnabas.cli.demo_stage import LiveStage, PlainStage, Stage, open_stage
from barnabas.cli.demo_story import FactMissingError
from barnabas.client.api import AsyncClient
from barnabas.client.flows import Retries
from barnabas.domain.signing import headers, make_secret
from tests.unit.cli.conftest import JOB_ID
from tests.unit.client.server import Reply, Script

SECRET = make_secret(bytes(range(32)))
ENDPOINT = Reply(201, {"id": "0190f3c2-0000-7000-8000-0000000000ee", "url": "http://x", "secret": SECRET})
QUEUED = {"id": JOB_ID, "type": "echo", "status": "queued"}
NO_ATTEMPTS = Reply(200, {"items": []})
BODY = f'{{"type": "job.succeeded", "data": {{"id": "{JOB_ID}", "status": "succeeded"}}}}'.encode()


async def post(receiver: Receiver, body: bytes, signed: dict[str, str]) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        return (await http.post(receiver.webhook_url, content=body, headers=signed)).status_code


async def test_the_receiver_believes_only_what_is_signed_with_its_secret() -> None:
    good = headers([SECRET], "event-1", int(time.time()), BODY)
    forged = headers([make_secret(bytes(32))], "event-1", int(time.time()), BODY)
    old = headers([SECRET], "event-1", int(time.time()) - 3600, BODY)
    async with open_receiver() as receiver:
        before = await post(receiver, BODY, good)
        receiver.secret = SECRET
        refused = [await post(receiver, BODY, sent) for sent in (forged, old, {})]
        refused.append(await post(receiver, BODY + b" ", good))
        count = receiver.refused
        accepted = [await post(receiver, BODY, good) for _ in range(2)]
        webhook = await receiver.webhook(JOB_ID, "job.succeeded")

    assert before == 401
    assert refused == [401] * 4
    assert count == 5
    assert accepted == [204, 204]
    assert webhook.id == "event-1"
    assert SECRET not in repr(receiver)


async def test_the_service_is_down_until_it_is_repaired() -> None:
    async with open_receiver() as receiver, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        down = (await http.get(receiver.stock_url)).status_code
        receiver.is_repaired = True
        up = (await http.get(receiver.stock_url)).status_code

    assert (down, up) == (503, 200)


async def demo(server: Script, stage: Stage, *, timeout: float = 60) -> Any:
    def client() -> AsyncClient:
        return AsyncClient(server.url, "bk_x", timeout=60, retries=Retries(tries_max=1))

    return await show(client, stage, timeout=timeout)


async def test_a_wrong_result_ends_the_demo_and_the_endpoint_is_deleted(server: Script) -> None:
    wrong = QUEUED | {"status": "succeeded", "attempt": 1, "result": {"hello": "nobody"}}
    server.will(ENDPOINT, Reply(202, QUEUED), Reply(200, wrong), NO_ATTEMPTS, Reply(204))
    with pytest.raises(FactMissingError, match="ended as succeeded"):
        await demo(server, PlainStage())

    assert [asked.method for asked in server.asked] == ["POST", "POST", "GET", "GET", "DELETE"]


async def test_a_webhook_that_never_comes_ends_the_demo_in_time(server: Script) -> None:
    right = QUEUED | {"status": "succeeded", "attempt": 1, "result": {"hello": "world"}}
    server.will(ENDPOINT, Reply(202, QUEUED), Reply(200, right), NO_ATTEMPTS, Reply(204))
    # Long enough for a starved machine to come as far as the webhook.
    with pytest.raises(DemoFailedError, match="not done within 8 s; the last was: succeeded with its result"):
        await demo(server, PlainStage(), timeout=8)

    assert server.asked[-1].method == "DELETE"


async def test_a_refused_endpoint_ends_the_demo_with_the_reason(server: Script) -> None:
    server.will(Reply(422, {"status": 422, "code": "bad_target", "detail": "not public"}))
    with pytest.raises(Exception, match="not public"):
        await demo(server, PlainStage())

    assert len(server.asked) == 1


def play(stage: Stage) -> None:
    stage.open(["first act", "second act", "third act"])
    stage.begin()
    stage.line("a fact \x1b[2J[bold]")
    stage.begin()
    stage.now("waiting for it")


def test_plain_lines_are_printed_as_facts_happen(capsys: pytest.CaptureFixture[str]) -> None:
    play(PlainStage())
    lines = capsys.readouterr().out.split("\n")

    assert [line for line in lines if line[:1].isdigit()] == ["1. first act", "2. second act"]
    assert [line.endswith("a fact \N{REPLACEMENT CHARACTER}[2J[bold]") for line in lines].count(True) == 1


def test_the_live_display_shows_what_is_over_what_runs_and_what_comes() -> None:
    console = Console(file=io.StringIO(), width=100)
    stage = LiveStage()
    play(stage)
    with console.capture() as captured:
        console.print(stage.render())
    stage.is_broken = True
    with console.capture() as broken:
        console.print(stage.render())

    shown = captured.get()
    assert "✓ first act" in shown
    assert "a fact \N{REPLACEMENT CHARACTER}[2J[bold]" in shown
    assert "▶ second act" in shown
    assert "waiting for it" in shown
    assert "○ third act" in shown
    assert "1 of 3" in shown
    assert "✗ second act" in broken.get()


def test_a_file_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with open_stage(plain=False) as stage:
        assert isinstance(stage, PlainStage)
