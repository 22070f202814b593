"""The command line against a whole system, as a person or a script uses it."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack

# Only a failure takes that long: each command starts a process, and some wait half a minute themselves.
_SECONDS = 180.0

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@asynccontextmanager
async def started(*arguments: str, env: Mapping[str, str]) -> AsyncIterator[Process]:
    """A running command; killed if the test leaves it behind."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("BARNABAS_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "barnabas.cli.main",
        *arguments,
        env={**own, **env},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        # A shell has its background jobs ignore Ctrl-C, and whoever they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def finished(process: Process, stdin: bytes | None = None) -> Outcome:
    async with asyncio.timeout(_SECONDS):
        out, err = await process.communicate(stdin)
    return Outcome(process.returncode, out.decode(), err.decode())


async def run(stack: Stack, *arguments: str, key: str = "", stdin: bytes | None = None) -> Outcome:
    """Run a command that finds the stack by its directory; with `key`, as another tenant."""
    env = {"BARNABAS_DATA_DIR": str(stack.directory)} | ({"BARNABAS_API_KEY": key} if key else {})
    async with started(*arguments, env=env) as process:
        return await finished(process, stdin)


async def test_a_job_is_submitted_and_its_result_printed(stack: Stack) -> None:
    _, key = await stack.tenant("cli-submit")
    waited = await run(stack, "submit", "echo", "-", "--wait", "--json", key=key, stdin=b'{"a": [1, "\xc3\xa4"]}')
    keyed = [await run(stack, "submit", "echo", "1", "--key", "once", "--json", key=key) for _ in range(2)]
    reused = await run(stack, "submit", "echo", "2", "--key", "once", key=key)
    listed = await run(stack, "jobs", "list", "--json", key=key)
    shown = await run(stack, "jobs", "show", waited.json["id"], key=key)

    assert (waited.code, waited.json["status"], waited.json["result"]) == (0, "succeeded", {"a": [1, "ä"]})
    assert keyed[0].json["id"] == keyed[1].json["id"]
    assert (reused.code, "[idempotency_key_reused]" in reused.err, reused.err.count("\n")) == (1, True, 1)
    assert [job["id"] for job in listed.json] == [keyed[0].json["id"], waited.json["id"]]
    assert "attempt 1: succeeded" in shown.out


async def test_a_running_job_is_watched_until_it_is_cancelled(stack: Stack) -> None:
    _, key = await stack.tenant("cli-watch")
    job = (await run(stack, "submit", "sleep", '{"seconds": 600}', "--json", key=key)).json["id"]
    env = {"BARNABAS_DATA_DIR": str(stack.directory), "BARNABAS_API_KEY": key, "PYTHONUNBUFFERED": "1"}
    async with started("jobs", "watch", job, env=env) as process:
        assert process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            async for line in process.stdout:
                if line == b"running (attempt 1)\n":
                    break
        cancelled = await run(stack, "jobs", "cancel", job, key=key)
        outcome = await finished(process)

    assert cancelled.code == 0
    assert outcome.code == 1
    assert "\ncancelled (attempt" in f"\n{outcome.out}"


async def test_a_failed_job_is_a_dead_letter_and_redriven(stack: Stack) -> None:
    _, key = await stack.tenant("cli-dlq")
    payload = '{"times": 1, "error": "permanent"}'
    failed = await run(stack, "submit", "fail", payload, "--wait", "--json", key=key)
    letters = await run(stack, "dlq", "list", "--json", key=key)
    counted = await run(stack, "dlq", "redrive", "--all", "--dry-run", "--json", key=key)
    redriven = await run(stack, "dlq", "redrive", failed.json["id"], "--json", key=key)
    again = await run(stack, "jobs", "retry", failed.json["id"], key=key)
    (newest, _) = (await run(stack, "jobs", "list", "--json", key=key)).json

    assert (failed.code, failed.json["error"]["code"]) == (1, "told_to_fail")
    assert [(letter["id"], letter["reason"]) for letter in letters.json] == [(failed.json["id"], "permanent_error")]
    assert counted.json == {"matched": 1, "done": 0, "dry_run": True}
    assert redriven.json == {"matched": 1, "done": 1, "dry_run": False}
    assert newest["redrive_of"] == failed.json["id"]
    # Closed, unless the redriven job is still open: then that one is the answer.
    assert again.code == 0 or "[dead_letter_closed]" in again.err


async def test_an_administrator_makes_a_tenant_a_key_and_a_limit(stack: Stack) -> None:
    tenant = (await run(stack, "tenants", "create", "cli-admin", "--json")).json["id"]
    made = (await run(stack, "keys", "create", tenant, "--json")).json
    limit = await run(stack, "limits", "set", tenant, "--concurrency", "3")
    shown = await run(stack, "limits", "show", tenant, "--json")
    tenants = await run(stack, "tenants", "list", "--json")
    submitted = await run(stack, "submit", "echo", "--wait", "--json", key=made["key"])
    explained = await run(stack, "jobs", "explain", submitted.json["id"], key=made["key"])
    keys = await run(stack, "keys", "list", tenant)
    revoked = await run(stack, "keys", "revoke", tenant, made["id"])

    async def refusal() -> str:
        return (await run(stack, "jobs", "list", key=made["key"])).err

    assert "[unauthorized]" in await eventually(refusal)
    assert tenant in [each["id"] for each in tenants.json]
    assert (limit.code, shown.json["concurrency"], shown.json["weight"]) == (0, 3, 1)
    assert submitted.json["status"] == "succeeded"
    assert explained.out.startswith("The job has succeeded.\ncause ")
    assert (made["prefix"] in keys.out, made["key"] in keys.out) == (True, False)
    assert revoked.code == 0


async def test_endpoints_are_made_listed_and_deleted(stack: Stack) -> None:
    _, key = await stack.tenant("cli-endpoints")
    made = await run(stack, "endpoints", "create", "http://127.0.0.1:9/", "--event", "job.failed", "--json", key=key)
    listed = await run(stack, "endpoints", "list", key=key)
    deleted = await run(stack, "endpoints", "delete", made.json["id"], key=key)
    left = await run(stack, "endpoints", "list", "--json", key=key)
    refused = await run(stack, "endpoints", "create", "ftp://example.com/", key=key)

    assert made.json["secret"].startswith("whsec_")
    assert (made.json["id"] in listed.out, made.json["secret"] in listed.out) == (True, False)
    assert (deleted.code, left.json) == (0, [])
    assert (refused.code, "[bad_target]" in refused.err) == (1, True)


async def test_servers_that_are_up_to_date_are_left_as_they_are(stack: Stack) -> None:
    migrated, made = await run(stack, "migrate"), await run(stack, "topics")

    assert (migrated.code, migrated.out) == (0, "All migrations are applied already.\n")
    assert (made.code, made.out) == (0, "All topics are as they should be.\n")


async def test_a_wrong_password_for_the_database_is_a_line_and_not_a_traceback(stack: Stack) -> None:
    where = stack.told["postgres"].rpartition("@")[2]
    outcome = await run(stack, "migrate", "--postgres", f"postgresql://barnabas_owner:a-wrong-one@{where}")

    assert outcome.code == 1
    assert "[database_refused]" in outcome.err
    assert "a-wrong-one" not in outcome.err
    assert outcome.err.count("\n") == 1


async def test_one_service_runs_until_it_is_stopped(stack: Stack) -> None:
    env = {name: value for name, value in psutil.Process(stack.pid("worker")).environ().items() if "BARNABAS" in name}
    async with started("worker", env=env | {"BARNABAS_OPS_PORT": "0"}) as process:
        assert process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            async for line in process.stdout:
                if b"service_ready" in line:
                    break
        process.send_signal(signal.SIGTERM)
        outcome = await finished(process)

    assert outcome.code == 0
    assert "service_stopped" in outcome.out


async def test_the_demo_shows_what_really_happened_and_cleans_up(stack: Stack) -> None:
    tenant, key = await stack.tenant("cli-demo")
    outcome = await run(stack, "demo", "--plain", "--timeout", "150", key=key)
    jobs = (await run(stack, "jobs", "list", "--json", key=key)).json
    async with stack.database() as database:
        delivered = await database.fetchval("SELECT count(*) FROM deliveries WHERE tenant_id = $1", tenant)
    endpoints = await run(stack, "endpoints", "list", "--json", key=key)
    letters = await run(stack, "dlq", "list", "--json", key=key)

    assert outcome.code == 0, outcome.err
    assert outcome.out.count("signature verified") == 4
    assert [(job["type"], job["status"], job["attempt"]) for job in reversed(jobs)] == [
        ("echo", "succeeded", 1),
        ("fail", "succeeded", 3),
        ("http_request", "failed", 2),
        ("http_request", "succeeded", 1),
    ]
    assert jobs[0]["redrive_of"] == jobs[1]["id"]
    assert all(job["id"] in outcome.out for job in jobs)
    assert delivered == 4
    assert (endpoints.json, letters.json) == ([], [])


async def test_a_demo_that_is_stopped_leaves_no_endpoint(stack: Stack) -> None:
    _, key = await stack.tenant("cli-demo-stopped")
    env = {"BARNABAS_DATA_DIR": str(stack.directory), "BARNABAS_API_KEY": key, "PYTHONUNBUFFERED": "1"}
    for number in (signal.SIGINT, signal.SIGTERM):
        async with started("demo", "--plain", env=env) as process:
            assert process.stdout is not None
            async with asyncio.timeout(_SECONDS):
                async for line in process.stdout:
                    if b"submitted: fail" in line:
                        break
            process.send_signal(number)
            outcome = await finished(process)

        # 128 + SIGINT, as shells expect of a program that Ctrl-C has ended.
        assert (outcome.code, outcome.err) == (130, "")
    endpoints = await run(stack, "endpoints", "list", "--json", key=key)

    assert endpoints.json == []


async def test_a_demo_without_time_fails_and_leaves_no_endpoint(stack: Stack) -> None:
    _, key = await stack.tenant("cli-demo-late")
    outcome = await run(stack, "demo", "--plain", "--timeout", "2", key=key)
    endpoints = await run(stack, "endpoints", "list", "--json", key=key)

    assert outcome.code == 1
    assert "[demo_failed]" in outcome.err
    assert endpoints.json == []
