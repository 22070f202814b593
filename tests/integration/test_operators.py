"""`barnabas verify` and `barnabas doctor` as commands, on real servers."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from typing import Any

import pytest

from barnabas.domain.attempts import LOSSES_MAX
from barnabas.postgres.leaders import take_lead
from barnabas_local.ports import free_port
from tests.support.world import World, new_id

# A command that waits for a server which isn't there gives up long before.
_SECONDS = 120.0

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def run(*arguments: str, **env: str) -> Outcome:
    """A command with nothing in its environment but this."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("BARNABAS_")}
    # A stack that a developer runs from here is none of this.
    own["BARNABAS_DATA_DIR"] = "nowhere"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "barnabas.cli.main", *arguments, env={**own, **env}, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Outcome(process.returncode, out.decode(), err.decode())


async def examine(world: World, **env: str) -> dict[str, dict[str, str]]:
    """The doctor's lines by part, the last of each."""
    servers = {"BARNABAS_KAFKA": world.kafka, "BARNABAS_POSTGRES": world.logins.engine_dsn}
    outcome = await run("doctor", "--json", **{**servers, **env})
    lines = outcome.json["lines"]
    assert outcome.code == (1 if any(line["level"] == "act" for line in lines) else 0), outcome.err
    assert outcome.json["fine"] is (outcome.code == 0)
    return {line["part"]: line for line in lines}


async def keep_outbox_young(world: World) -> None:
    """A row that has waited for a minute is a finding of its own, and a command may take that long to start."""
    await world.superuser.execute("UPDATE outbox SET created_at = now() + interval '1 hour'")


async def test_verify_of_a_system_that_agrees_is_0_and_prints_a_table(world: World) -> None:
    await world.insert(await world.tenant(running_at_most=1), count=3)
    await keep_outbox_young(world)

    outcome = await run("verify", "--all", "--patience", "0", BARNABAS_POSTGRES=world.logins.owner_dsn)

    assert outcome.code == 0, outcome.out + outcome.err
    assert "0 found" in outcome.out
    assert "undelivered" in outcome.out


async def test_verify_looks_twice_and_names_what_stayed(world: World) -> None:
    tenant = await world.tenant()
    (job_id,) = await world.insert(tenant)
    await world.superuser.execute("UPDATE jobs SET losses = $1", LOSSES_MAX)
    await keep_outbox_young(world)

    dsn = world.logins.engine_dsn
    told = await run("verify", "--json", "--patience", "0.1", "--postgres", dsn)
    shown = await run("verify", "--patience", "0.1", "--postgres", dsn)

    findings = [(each["name"], one["id"]) for each in told.json["checks"] for one in each["findings"]]
    assert (told.code, told.json["clean"], findings) == (1, False, [("attempts", str(job_id))])
    assert shown.code == 1
    assert str(job_id) in shown.out
    assert "looked at again" in shown.err


async def test_verify_refuses_a_login_that_sees_too_little(world: World) -> None:
    outcome = await run("verify", "--postgres", world.logins.api_dsn)

    assert outcome.code == 1
    assert "[verify_refused]" in outcome.err
    assert "Traceback" not in outcome.err


async def test_verify_without_an_address_says_how_to_give_one() -> None:
    outcome = await run("verify", "--data-dir", "nowhere")

    assert outcome.code == 1
    assert "--postgres" in outcome.err


async def test_the_doctor_says_who_is_missing_and_what_waits_for_him(world: World) -> None:
    await world.insert(await world.tenant(), count=2)
    await world.superuser.execute("UPDATE outbox SET created_at = now() - interval '1 minute'")

    lines = await examine(world)

    assert {part for part, line in lines.items() if line["level"] == "act"} == {
        "leader", "workers", "outbox", "lost records",
    }  # fmt: skip
    assert lines["outbox"]["then"].startswith("not before a retry-scheduler leads")
    assert "17 topics are as they should be" in lines["topics"]["now"]
    assert lines["schema"]["now"] == "every migration is applied"
    assert {"postgres", "days", "leases", "timers"} <= lines.keys()


async def test_the_doctor_is_content_with_a_system_that_heals(world: World) -> None:
    tenant = await world.tenant(running_at_most=1)
    await world.insert(tenant, "scoring", count=2)
    await world.worker("scoring")
    await world.superuser.execute("UPDATE outbox SET created_at = now() - interval '1 minute'")
    await world.superuser.execute(
        "INSERT INTO workers (worker_id, service, host, pid, slots, type_ids, lease_until)"
        " VALUES ($1, 'worker', 'gone', 1, 1, '{}', now() - interval '1 minute')",
        new_id(),
    )
    async with world.engine.session() as session:
        assert await take_lead(session, "retry-scheduler", new_id(), lease_seconds=600.0)

    lines = await examine(world)

    assert [part for part, line in lines.items() if line["level"] == "act"] == []
    assert (lines["leases"]["level"], lines["outbox"]["level"]) == ("healing", "healing")
    assert "10 s" in lines["leases"]["then"]


async def test_the_doctor_explains_servers_and_processes_that_are_away(world: World) -> None:
    nowhere = f"127.0.0.1:{free_port()}"

    lines = await examine(world, BARNABAS_KAFKA=nowhere, BARNABAS_POSTGRES=f"postgresql://a:secret@{nowhere}/b")
    shown = await run("doctor", "--ops", f"http://{nowhere}", "--postgres", f"postgresql://a:secret@{nowhere}/b")

    assert {part for part, line in lines.items() if line["level"] == "act"} == {"postgres", "kafka"}
    assert "503" in lines["postgres"]["then"]
    assert "jobs are accepted all the while" in lines["kafka"]["then"]
    assert shown.code == 1
    assert f"can't be reached at http://{nowhere}" in shown.out
    assert "secret" not in shown.out + shown.err
