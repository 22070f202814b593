"""What each command sends, prints and exits with."""

import io
import sys
from pathlib import Path

import pytest

from tests.unit.cli.command import Command
from tests.unit.cli.conftest import JOB_ID
from tests.unit.client.server import HANG_UP, Reply, Script

TENANT = "0190f3c2-0000-7000-8000-0000000000aa"
AT = "2026-01-31T12:00:00.123456Z"
QUEUED = {"id": JOB_ID, "type": "echo", "status": "queued", "created_at": AT}
FAILED = QUEUED | {"status": "failed", "attempt": 1, "error": {"code": "no_luck", "message": "it\x1b[31m failed"}}
SUCCEEDED = QUEUED | {"status": "succeeded", "attempt": 1, "result": {"a": 1}}


def page(*items: object, cursor: str | None = None) -> Reply:
    return Reply(200, {"items": items, "next_cursor": cursor})


def problem(status: int, code: str, **more: object) -> Reply:
    return Reply(status, {"status": status, "code": code, "detail": f"about {code}", **more})


def test_submit_sends_what_it_was_told(api: Script, command: Command) -> None:
    api.will(Reply(202, QUEUED))
    outcome = command(
        "submit", "echo", '{"n": 1}', "--priority", "high", "--run-at", "2026-01-31T12:00:00Z", "--key", "k 1",
        "--metadata", '{"order": 7}', "--max-attempts", "2",
    )  # fmt: skip
    (asked,) = api.asked

    assert outcome.code == 0
    assert JOB_ID in outcome.out
    assert (asked.method, asked.path, asked.headers["idempotency-key"]) == ("POST", "/v1/jobs", "k 1")
    assert asked.json == {
        "type": "echo",
        "payload": {"n": 1},
        "priority": "high",
        "run_at": "2026-01-31T12:00:00Z",
        "max_attempts": 2,
        "metadata": {"order": 7},
    }


def test_a_payload_comes_from_standard_input(api: Script, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO('"ä"'.encode())))
    api.will(Reply(202, QUEUED))
    outcome = command("submit", "echo", "-", "--json")

    assert outcome.json["id"] == JOB_ID
    assert api.asked[0].json["payload"] == "ä"


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "echo", "text"),
        ("submit", "echo", "NaN"),
        ("submit", "echo", "1e999"),
        ("submit", "echo", "[" * 100_000),
        ("submit", "echo", "--metadata", "[]"),
        ("submit", "echo", "--delay", "nan"),
        ("submit", "echo", "--delay", "-1"),
        ("submit", "echo", "--run-at", "tomorrow"),
        ("submit", "echo", "--run-at", "2026-01-31T12:00:00"),
        ("submit", "echo", "--delay", "1", "--run-at", "2026-01-31T12:00:00Z"),
        ("submit", "echo", "--key", "line\nbreak"),
        ("submit", "echo", "--priority", "urgent"),
        ("jobs", "list", "--limit", "0"),
        ("dlq", "redrive"),
        ("dlq", "redrive", JOB_ID, "--all"),
        ("limits", "set", TENANT),
        ("limits", "set", TENANT, "--concurrency", "many"),
        ("limits", "set", TENANT, "--type", "scoring"),
        ("limits", "set", TENANT, "--type", "scoring:speed=3"),
        ("limits", "set", TENANT, "--type", "scoring:concurrency"),
        ("endpoints", "create", "http://x", "--event", "job.started"),
        ("migrate", "--prepare", "--data-dir", "stack"),
        ("nonsense",),
    ],
)
def test_a_mistake_in_the_usage_is_told_and_nothing_is_sent(
    arguments: tuple[str, ...], api: Script, command: Command
) -> None:
    if "stack" in arguments:
        Path("stack").mkdir()
        Path("stack/stack.json").write_text('{"postgres": "postgresql://owner@nowhere/x"}')
    outcome = command(*arguments)

    assert outcome.code == 2
    assert "Error" in outcome.err
    assert "Traceback" not in outcome.err
    assert api.asked == []


def test_submit_that_waits_tells_the_end(api: Script, command: Command) -> None:
    api.will(Reply(202, QUEUED), Reply(200, SUCCEEDED))
    outcome = command("submit", "echo", "--wait")

    assert outcome.code == 0
    assert '{"a": 1}' in outcome.out


def test_submit_that_waits_fails_with_the_job(api: Script, command: Command) -> None:
    api.will(Reply(202, QUEUED), Reply(200, FAILED))
    outcome = command("submit", "echo", "--wait", "--json")

    assert outcome.code == 1
    assert outcome.json["status"] == "failed"


def test_a_job_that_does_not_end_in_time_is_an_error_with_its_code(api: Script, command: Command) -> None:
    api.will(Reply(202, QUEUED), Reply(200, QUEUED))
    outcome = command("submit", "echo", "--wait", "--timeout", "0")

    assert outcome.code == 1
    assert "[job_not_ended]" in outcome.err


def test_a_problem_is_one_line_with_its_code_and_the_place(api: Script, command: Command) -> None:
    api.will(problem(422, "validation_failed", errors=[{"pointer": "/payload", "detail": "too deep"}]))
    outcome = command("submit", "echo")

    assert outcome.code == 1
    assert outcome.err == "barnabas: /payload: too deep [validation_failed]\n"
    assert outcome.out == ""


def test_an_answer_that_got_lost_is_an_error_and_the_job_is_not_sent_twice(api: Script, command: Command) -> None:
    api.will(HANG_UP)
    outcome = command("submit", "echo")

    assert outcome.code == 1
    assert "[api_unreachable]" in outcome.err
    assert len(api.asked) == 1


def test_a_list_ends_at_its_limit(api: Script, command: Command) -> None:
    api.will(page(QUEUED, cursor="c1"), page(SUCCEEDED, FAILED))
    outcome = command("jobs", "list", "--limit", "2", "--json", "--status", "queued")

    assert [job["status"] for job in outcome.json] == ["queued", "succeeded"]
    assert api.asked[0].path == "/v1/jobs?status=queued&limit=2"


def test_what_tenants_wrote_cannot_steer_the_terminal(api: Script, command: Command) -> None:
    api.will(page(FAILED))
    outcome = command("jobs", "list")

    assert "\x1b" not in outcome.out
    assert "no_luck: it\N{REPLACEMENT CHARACTER}[31m failed" in outcome.out


def test_show_has_the_attempts_and_the_deliveries(api: Script, command: Command) -> None:
    attempt = {"kind": "attempt", "attempt": 1, "outcome": "failed", "error": FAILED["error"]}
    delivery = {"id": JOB_ID, "status": "delivered", "attempt": 1, "last_status": 204}
    timeline = Reply(200, {"items": [attempt], "deliveries": [delivery]})
    api.will(Reply(200, FAILED), timeline, Reply(200, FAILED), timeline)
    shown, told = command("jobs", "show", JOB_ID), command("jobs", "show", JOB_ID, "--json")

    assert "attempt 1: failed" in shown.out
    assert "delivered" in shown.out
    assert (told.json["attempts"][0]["outcome"], told.json["deliveries"][0]["last_status"]) == ("failed", 204)


def test_watch_tells_each_change_and_fails_with_the_job(api: Script, command: Command) -> None:
    running = QUEUED | {"status": "running", "attempt": 1, "progress": {"percent": 50, "message": "half"}}
    api.will(*(Reply(200, job) for job in (QUEUED, QUEUED, running, FAILED)))
    outcome = command("jobs", "watch", JOB_ID)

    assert outcome.code == 1
    assert outcome.out.splitlines()[:3] == ["queued (attempt 0)", "running (attempt 1) 50 % half", "failed (attempt 1)"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_job_is_cancelled_or_sent_round_again(verb: str, api: Script, command: Command) -> None:
    api.will(Reply(202, QUEUED))
    outcome = command("jobs", verb, JOB_ID)

    assert outcome.code == 0
    assert (api.asked[0].method, api.asked[0].path) == ("POST", f"/v1/jobs/{JOB_ID}/{verb}")


def test_redriving_all_settles_first_what_that_is(api: Script, command: Command) -> None:
    letters = [
        {"kind": "jobs", "id": f"0190f3c2-0000-7000-8000-{n:012}", "reason": "permanent_error", "at": AT}
        for n in range(101)
    ]
    api.will(
        page(*letters[:100], cursor="c1"),
        page(letters[100]),
        Reply(200, {"matched": 100, "done": 100, "dry_run": False}),
        Reply(200, {"matched": 1, "done": 1, "dry_run": False}),
    )
    outcome = command("dlq", "redrive", "--all", "--json")

    assert (outcome.code, outcome.json) == (0, {"matched": 101, "done": 101, "dry_run": False})
    assert [asked.method for asked in api.asked] == ["GET", "GET", "POST", "POST"]
    assert [len(asked.json["filter"]["ids"]) for asked in api.asked[2:]] == [100, 1]


def test_naming_a_letter_that_is_not_open_is_a_failure(api: Script, command: Command) -> None:
    api.will(Reply(200, {"matched": 0, "done": 0, "dry_run": False}))

    assert command("dlq", "redrive", JOB_ID).code == 1


def test_dead_letters_are_listed_with_their_errors(api: Script, command: Command) -> None:
    api.will(page({"kind": "jobs", "id": JOB_ID, "reason": "permanent_error", "at": AT, "job": FAILED}))
    outcome = command("dlq", "list")

    assert JOB_ID in outcome.out
    assert "permanent_error" in outcome.out
    assert "no_luck" in outcome.out


def test_a_new_key_is_shown_once(api: Script, command: Command) -> None:
    api.will(Reply(201, {"id": JOB_ID, "prefix": "bk_1", "key": "bk_1_secret"}))
    outcome = command("keys", "create", TENANT, "--name", "ci")

    assert (outcome.out + outcome.err).count("bk_1_secret") == 1
    assert (api.asked[0].path, api.asked[0].json) == (f"/v1/admin/tenants/{TENANT}/keys", {"name": "ci"})
    assert api.asked[0].headers["authorization"] == "Bearer of-the-administrator"


def test_a_new_endpoints_secret_is_shown_once(api: Script, command: Command) -> None:
    api.will(Reply(201, {"id": JOB_ID, "url": "https://x.example/", "secret": "whsec_abc"}))
    outcome = command("endpoints", "create", "https://x.example/", "--event", "job.failed", "--retry", "1.5")

    assert (outcome.out + outcome.err).count("whsec_abc") == 1
    assert api.asked[0].json == {
        "url": "https://x.example/",
        "event_types": ["job.failed"],
        "retry_schedule_seconds": [1.5],
    }


@pytest.mark.parametrize(
    ("arguments", "path", "item"),
    [
        (("tenants", "list"), "/v1/admin/tenants?limit=100", {"id": TENANT, "name": "acme"}),
        (
            ("keys", "list", TENANT),
            f"/v1/admin/tenants/{TENANT}/keys?limit=100",
            {"id": JOB_ID, "prefix": "bk_1", "name": "acme"},
        ),
        (("endpoints", "list"), "/v1/endpoints", {"id": JOB_ID, "url": "https://acme.example/"}),
    ],
)
def test_lists_go_through_all_pages(
    arguments: tuple[str, ...], path: str, item: object, api: Script, command: Command
) -> None:
    api.will(page(item, cursor="c1"), page(item))
    outcome = command(*arguments)

    assert outcome.out.count("acme") == 2
    assert api.asked[0].path == path
    assert "cursor=c1" in api.asked[1].path


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("keys", "revoke", TENANT, JOB_ID), f"/v1/admin/tenants/{TENANT}/keys/{JOB_ID}"),
        (("endpoints", "delete", JOB_ID), f"/v1/endpoints/{JOB_ID}"),
    ],
)
def test_what_is_deleted_is_named(arguments: tuple[str, ...], path: str, api: Script, command: Command) -> None:
    api.will(Reply(204))

    assert JOB_ID in command(*arguments).out
    assert (api.asked[0].method, api.asked[0].path) == ("DELETE", path)


LIMITS = {
    "concurrency": 5,
    "starts_per_minute": None,
    "submits_per_minute": 600,
    "weight": 2,
    "types": {"a:b": {"concurrency": 1, "starts_per_minute": None}},
}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (("--concurrency", "3"), {"concurrency": 3}),
        (("--concurrency", "none", "--starts-per-minute", "9"), {"concurrency": None, "starts_per_minute": 9}),
        (("--weight", "7"), {"weight": 7}),
        (
            ("--type", "scoring:concurrency=2,starts-per-minute=10", "--type", "a:b:none"),
            {"types": {"scoring": {"concurrency": 2, "starts_per_minute": 10}}},
        ),
        (("--type", "a:b:starts_per_minute=3"), {"types": {"a:b": {"concurrency": None, "starts_per_minute": 3}}}),
        (("--unlimited",), {"concurrency": None, "submits_per_minute": None, "types": {}}),
        (
            ("--unlimited", "--submits-per-minute", "5"),
            {"concurrency": None, "submits_per_minute": 5, "types": {}},
        ),
    ],
)
def test_limits_that_are_not_named_stay(
    options: tuple[str, ...], changed: dict[str, object], api: Script, command: Command
) -> None:
    api.will(Reply(200, LIMITS), Reply(200, LIMITS | changed))
    done = command("limits", "set", TENANT, *options, "--json")
    asked, sent = api.asked

    assert done.code == 0
    assert (asked.method, sent.method, sent.json) == ("GET", "PUT", LIMITS | changed)
    assert done.json | {"use": None} == LIMITS | changed | {"use": None}


def test_limits_are_shown_with_what_is_used(api: Script, command: Command) -> None:
    use = {"running": 3, "starts": None, "submits": 12, "types": {"a:b": {"running": 1, "starts": None}}}
    api.will(Reply(200, LIMITS | {"use": use}))
    shown = command("limits", "show", TENANT)

    assert shown.out.splitlines() == [
        "concurrency            5 (3 running)",
        "starts per minute      no limit",
        "submits per minute     600 (12 submitted in the last minute)",
        "weight                 2",
        "a:b concurrency        1 (1 running)",
        "a:b starts per minute  no limit",
    ]


def test_an_explanation_is_a_sentence_with_its_figures(api: Script, command: Command) -> None:
    told = {
        "id": JOB_ID,
        "status": "queued",
        "cause": "tenant_starts",
        "message": "Not \x1b[31m yet.",
        "until": AT,
        "details": {"starts": 10, "allowed": 10, "since": None, "before_is_minimum": False, "type": "echo"},
    }
    api.will(Reply(200, told), Reply(200, told))
    shown, as_json = command("jobs", "explain", JOB_ID), command("jobs", "explain", JOB_ID, "--json")

    assert api.asked[0].path == f"/v1/jobs/{JOB_ID}/explain"
    assert shown.out.splitlines() == [
        "Not \N{REPLACEMENT CHARACTER}[31m yet.",
        "cause              tenant_starts",
        "until              2026-01-31 12:00:00.123Z",
        "starts             10",
        "allowed            10",
        "before is minimum  false",
        "type               echo",
    ]
    assert as_json.json == told


def test_a_tenant_is_made(api: Script, command: Command) -> None:
    api.will(Reply(201, {"id": TENANT, "name": "acme"}), problem(409, "name_taken"))
    made, taken = command("tenants", "create", "acme"), command("tenants", "create", "acme")

    assert TENANT in made.out
    assert (taken.code, taken.err) == (1, "barnabas: about name_taken [name_taken]\n")


def test_an_unreachable_server_is_an_error_with_its_code(command: Command) -> None:
    refused = "127.0.0.1:1"
    outcome = command("migrate", "--postgres", f"postgresql://owner:pw@{refused}/x")

    assert outcome.code == 1
    assert "[database_unavailable]" in outcome.err
    assert "pw" not in outcome.err


def test_a_service_says_which_settings_it_lacks(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # The command sets it for its own process, which here is this one.
    monkeypatch.setenv("BARNABAS_APP", "")
    outcome = command("worker", "--app", "my.handlers:app")

    assert outcome.code == 2
    assert "BARNABAS_KAFKA is not set" in outcome.err


def test_every_command_has_help(command: Command) -> None:
    listed = command("--help").out
    groups = ("jobs", "dlq", "endpoints", "tenants", "keys", "limits")
    alone = ("submit", "demo", "worker", "ingest", "notifier", "retry-scheduler", "migrate", "topics")

    for name in (*groups, *alone):
        outcome = command(name, "--help")

        assert (outcome.code, name in listed) == (0, True)
        assert name in outcome.out
