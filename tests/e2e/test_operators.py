"""What the commands for operators say of a whole system that lives."""

import pytest

from tests.e2e.test_command_line import run
from tests.support.eventually import eventually
from tests.support.stack import Stack

PROCESSES = ("ingest", "worker", "notifier", "retry-scheduler")
pytestmark = pytest.mark.timeout(600)

PARTS = ("postgres", "schema", "days", "leader", "leases", "topics")


async def test_verify_finds_nothing_while_jobs_of_all_kinds_are_on_their_way(stack: Stack) -> None:
    tenant, key = await stack.tenant("operators-verify", concurrency=2)
    async with stack.client(key) as client:
        for number in range(40):
            wish: tuple[str, object] = ("fail", {"times": 1}) if number % 4 == 0 else ("sleep", {"seconds": 0.2})
            await client.submit(*wish)
        await client.submit("echo", 1, delay_seconds=3_600)
        outcome = await run(stack, "verify", "--all", "--json", "--patience", "30")

    mine = [one for each in outcome.json["checks"] for one in each["findings"] if one["tenant_id"] == tenant]
    assert mine == []
    assert all(each["reason"] is None for each in outcome.json["checks"])


async def test_the_doctor_knows_every_process_of_the_stack(stack: Stack) -> None:
    async def examined() -> dict[str, dict[str, str]]:
        outcome = await run(stack, "doctor", "--json")
        return {line["part"]: line for line in outcome.json["lines"]}

    def is_well(lines: dict[str, dict[str, str]]) -> bool:
        # Its first walk over the open jobs ends soon after the start.
        has_walked = "counts as lost" in lines["lost records"]["then"]
        ready = all(lines.get(name, {}).get("now") == "ready" for name in PROCESSES)
        # How full this machine's disk is, is another matter.
        is_told = "disk" in lines
        return has_walked and ready and is_told and all(lines[part]["level"] == "fine" for part in PARTS)

    await eventually(examined, until=is_well, timeout=300.0)
