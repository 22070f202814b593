"""A redrive at a rate, from the command line."""

import pytest

from tests.unit.cli.command import Command
from tests.unit.cli.conftest import JOB_ID
from tests.unit.client.server import Reply, Script

LAST_AT = "2026-01-31T12:00:30Z"


def test_the_rate_is_sent_and_the_last_due_time_is_told(api: Script, command: Command) -> None:
    api.will(Reply(200, {"matched": 1, "done": 1, "dry_run": False, "last_at": LAST_AT}))
    outcome = command("dlq", "redrive", JOB_ID, "--rate", "0.5")

    assert api.asked[0].json == {"filter": {"kind": "jobs", "ids": [JOB_ID]}, "dry_run": False, "rate": 0.5}
    assert outcome.code == 0
    assert "the last one at 2026-01-31 12:00:30.000Z" in outcome.out


def test_without_a_rate_none_is_sent_and_no_time_is_told(api: Script, command: Command) -> None:
    api.will(Reply(200, {"matched": 1, "done": 1, "dry_run": False}))
    outcome = command("dlq", "redrive", JOB_ID, "--json")

    assert "rate" not in api.asked[0].json
    assert outcome.json == {"matched": 1, "done": 1, "dry_run": False}


@pytest.mark.parametrize("rate", ["0", "-1", "100000", "fast"])
def test_a_rate_that_makes_no_sense_is_a_mistake_in_the_usage(rate: str, api: Script, command: Command) -> None:
    outcome = command("dlq", "redrive", JOB_ID, "--rate", rate)

    assert outcome.code == 2
    assert api.asked == []
