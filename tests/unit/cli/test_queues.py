"""`barnabas queues`, and `barnabas worker --queues`: what is sent and shown."""

import os

import pytest

from tests.unit.cli.command import Command
from tests.unit.client.server import Reply, Script

DEFAULT = {"name": "default", "shares": {"critical": 25, "high": 25, "medium": 30, "low": 20}}
GPU = {"name": "gpu", "shares": {"critical": 70, "high": 10, "medium": 10, "low": 10}}


def test_queues_are_listed_with_their_shares(api: Script, command: Command) -> None:
    api.will(Reply(200, {"items": [DEFAULT, GPU]}), Reply(200, {"items": [DEFAULT, GPU]}))
    shown, as_json = command("queues", "list"), command("queues", "list", "--json")

    assert [(asked.method, asked.path) for asked in api.asked] == [("GET", "/v1/admin/queues")] * 2
    assert [line.split() for line in shown.out.splitlines()] == [
        ["QUEUE", "CRITICAL", "HIGH", "MEDIUM", "LOW"],
        ["default", "25", "25", "30", "20"],
        ["gpu", "70", "10", "10", "10"],
    ]
    assert as_json.json == [DEFAULT, GPU]


@pytest.mark.parametrize(
    ("name", "options", "sent"),
    [
        ("gpu", ("--critical", "60"), {"critical": 60, "high": 10, "medium": 10, "low": 10}),
        ("gpu", ("--low", "1", "--high", "2"), {"critical": 70, "high": 2, "medium": 10, "low": 1}),
        ("new", ("--medium", "5"), {"medium": 5}),
        ("new", (), {}),
    ],
)
def test_shares_that_are_not_named_stay(
    name: str, options: tuple[str, ...], sent: dict[str, int], api: Script, command: Command
) -> None:
    api.will(Reply(200, {"items": [DEFAULT, GPU]}), Reply(200, GPU))
    done = command("queues", "set", name, *options)
    _, put = api.asked

    assert done.code == 0
    assert (put.method, put.path, put.json) == ("PUT", f"/v1/admin/queues/{name}", {"shares": sent})
    assert "gpu" in done.out


@pytest.mark.parametrize("options", [("--low", "0"), ("--low", "1001"), ("--low", "much"), ("--urgent", "1")])
def test_shares_that_can_not_be_are_refused_before_anything_is_sent(
    options: tuple[str, ...], api: Script, command: Command
) -> None:
    outcome = command("queues", "set", "gpu", *options)

    assert outcome.code == 2
    assert api.asked == []


def test_a_workers_queues_are_an_option(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # The command sets it for its own process, which here is this one.
    monkeypatch.setenv("BARNABAS_QUEUES", "")
    outcome = command("worker", "--queues", "gpu,No Queue")

    assert os.environ["BARNABAS_QUEUES"] == "gpu,No Queue"
    assert outcome.code == 2
    assert "BARNABAS_QUEUES=gpu,No Queue" in outcome.err
    assert "for example BARNABAS_QUEUES=default,gpu" in outcome.err
