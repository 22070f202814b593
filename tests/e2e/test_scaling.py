"""A stack that scales itself, with two ingests on one port: workers come with the load and go after it, no job lost."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack, barnabas, open_stack

# Four jobs at once in each worker, so that three of them have something to do without the machine being busy.
_SETTINGS = {
    "BARNABAS_SLOTS": "4",
    "BARNABAS_WORKER_RATE": "8",
    "BARNABAS_WORKERS_LOOK_SECONDS": "0.5",
    "BARNABAS_WORKERS_UP_SECONDS": "1",
    "BARNABAS_WORKERS_DOWN_SECONDS": "3",
    "BARNABAS_WORKERS_DRAIN_SECONDS": "5",
}
_TENANTS = 8
# A test of it that fails takes that long; a starved machine is slow to start processes.
_PATIENCE_SECONDS = 180.0
_JOBS = 30
_INGESTS = ("ingest", "ingest_2")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
async def scaled() -> AsyncIterator[Stack]:
    """`barnabas up --workers 1..3 --ingest 2`."""
    async with open_stack(workers="1..3", ingest=2, env=_SETTINGS) as stack:
        yield stack


def running(stack: Stack) -> int:
    return int(stack.told["scaling"]["running"])


def of_workers(stack: Stack) -> dict[str, int]:
    """The process ids of all workers, by name."""
    return {name: pid for name, pid in stack.told["pids"].items() if name.startswith("worker")}


async def accepted(stack: Stack) -> dict[str, float]:
    """Jobs that each ingest has accepted by HTTP."""
    counts = {}
    async with httpx.AsyncClient(timeout=_PATIENCE_SECONDS, trust_env=False) as http:
        for name in _INGESTS:
            text = (await http.get(f"{stack.told['process_urls'][name]}/metrics")).text
            found = re.search(r'^barnabas_submissions_total\{outcome="accepted",source="http"\} (\S+)$', text, re.M)
            counts[name] = float(found[1]) if found else 0.0
    return counts


async def submit_on_new_connections(stack: Stack, count: int) -> list[Any]:
    """Each job over a connection of its own."""
    ids = []
    for _ in range(count):
        async with stack.client() as client:
            ids.append((await client.submit("echo", 1)).id)
    return ids


async def test_two_ingests_serve_one_port_and_when_one_is_killed_the_other_goes_on(scaled: Stack) -> None:
    told = scaled.told
    before = await accepted(scaled)
    ids = await submit_on_new_connections(scaled, 40)
    shares = {name: count - before[name] for name, count in (await accepted(scaled)).items()}
    async with httpx.AsyncClient(timeout=_PATIENCE_SECONDS, trust_env=False) as http:
        body, key = {"type": "echo", "payload": 1}, {"Authorization": f"Bearer {told['api_key']}"}
        scaled.signal("ingest-2", signal.SIGKILL)
        await eventually(lambda: told["pids"]["ingest_2"] not in {each.pid for each in scaled.processes()})
        # Without a retry: a client of httpx has none.
        for _ in range(20):
            headers = key | {"Connection": "close"}
            assert (await http.post(f"{told['api_url']}/v1/jobs", json=body, headers=headers)).status_code == 202
    await eventually(lambda: scaled.told["pids"].get("ingest_2") not in (None, told["pids"]["ingest_2"]))
    await scaled.until_ready("ingest-2")
    async with scaled.client() as client:
        ended = [await client.wait(job, timeout=_PATIENCE_SECONDS) for job in ids]

    assert told["ops_urls"]["ingest"] == told["process_urls"]["ingest"]
    assert sum(shares.values()) == 40
    # The kernel draws one for each connection: that one gets them all happens once in 10^11 times.
    assert min(shares.values()) >= 1
    assert {job.status for job in ended} == {"succeeded"}


async def test_workers_come_with_the_load_and_go_after_it_and_every_job_succeeds_at_once(scaled: Stack) -> None:
    keys = [(await scaled.tenant(f"scaling-{number}"))[1] for number in range(_TENANTS)]
    # What earlier tests have called for has gone again.
    await eventually(
        lambda: of_workers(scaled), until=lambda pids: pids.keys() == {"worker"}, timeout=_PATIENCE_SECONDS
    )
    first, said_before = scaled.pid("worker"), len(scaled.log("supervisor"))

    async def work(key: str) -> list[tuple[str, int | None]]:
        async with scaled.client(key) as client:
            jobs = await client.submit_batch([{"type": "sleep", "payload": {"seconds": 0.5}} for _ in range(_JOBS)])
            ended = [await client.wait(job.id, timeout=_PATIENCE_SECONDS) for job in jobs if job.id is not None]
            return [(job.status, job.attempt) for job in ended]

    async with asyncio.TaskGroup() as group:
        working = [group.create_task(work(key)) for key in keys]
        pids = await eventually(
            lambda: of_workers(scaled), until=lambda pids: len(pids) == 3, timeout=_PATIENCE_SECONDS
        )
        shown = await barnabas("status", "--data-dir", str(scaled.directory))
    ended = [each for task in working for each in task.result()]
    await eventually(lambda: running(scaled), until=lambda count: count == 1, timeout=_PATIENCE_SECONDS)
    gone = set(pids.values()) - {first}
    await eventually(
        lambda: gone & {each.pid for each in scaled.processes()}, until=lambda left: not left, timeout=_PATIENCE_SECONDS
    )
    said = scaled.log("supervisor")[said_before:]

    assert len(ended) == _TENANTS * _JOBS
    # Nothing was killed, so nothing ran twice.
    assert set(ended) == {("succeeded", 1)}
    # While it started, the first may have gone again.
    assert re.search(r"workers: [123] of 1\.\.3, \d wanted \(\w+\)", shown)
    assert len(gone) == 2
    assert scaled.pid("worker") == first
    assert "has drained" in said
    assert "starting it again" not in said


async def test_a_worker_that_is_killed_is_started_again(scaled: Stack) -> None:
    await scaled.kill("worker")
    async with scaled.client() as client:
        job = await client.submit("echo", 2)
        ended = await client.wait(job.id, timeout=_PATIENCE_SECONDS)

    assert ended.status == "succeeded"
    assert running(scaled) >= 1
