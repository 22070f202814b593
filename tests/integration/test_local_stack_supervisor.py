"""The supervisor on real servers, with stand-ins for the services: restarts, one per directory, nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from confluent_kafka.admin import AdminClient

from barnabas_local.paths import Home
from barnabas_local.processes import Identity
from barnabas_local.stack_file import Stack, read_processes, read_stack
from tests.support.eventually import eventually

_SECONDS = 90


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all tests, so that only the first of them makes data."""
    return tmp_path_factory.mktemp("stack") / ".barnabas"


async def test_the_file_says_where_everything_is_and_only_its_owner_may_read_it(directory: Path) -> None:
    async with _running(directory) as stack:
        mode = Home(directory).stack.stat().st_mode & 0o777

        assert mode == 0o600
        assert set(stack.ops_urls) == {"ingest", "worker", "notifier", "retry_scheduler"}
        assert set(stack.pids) == {
            *("supervisor", "kafka", "postgres"),
            *("ingest", "worker", "worker_2", "notifier", "retry_scheduler"),
        }
        assert await _tables(stack.postgres) > 0
        assert "barnabas.jobs.low" in _topics(stack.kafka)


async def test_what_dies_is_started_again_where_it_was_and_said(directory: Path) -> None:
    async with _running(directory) as before:
        victims = ("worker", "kafka", "postgres")
        for victim in victims:
            os.kill(before.pids[victim], signal.SIGKILL)

        after = await eventually(
            lambda: read_stack(Home(directory)),
            until=lambda stack: all(stack.pids.get(victim) != before.pids[victim] for victim in victims),
            timeout=_SECONDS,
        )

        assert (after.kafka, after.postgres, after.ops_urls) == (before.kafka, before.postgres, before.ops_urls)
        assert after.pids["ingest"] == before.pids["ingest"]
        assert await _tables(after.postgres) > 0
        assert "barnabas.jobs.low" in _topics(after.kafka)
        said = Home(directory).log("supervisor").read_text(encoding="utf-8")
        assert "worker was ended by signal 9; starting it again in 0.5 s" in said
        assert "kafka runs again" in said


async def test_a_second_up_does_no_harm_and_down_leaves_nothing(directory: Path) -> None:
    async with _running(directory) as stack:
        processes = list(read_processes(Home(directory)).values())

        second = await _barnabas("up", "--data-dir", str(directory))
        down = await _barnabas("down", "--data-dir", str(directory))
        again = await _barnabas("down", "--data-dir", str(directory))

        assert second.returncode == 0
        assert "already runs" in second.stdout
        assert stack.api_url in second.stdout
        assert down.returncode == again.returncode == 0
        assert "Nothing was running" in again.stdout
        assert _alive(processes) == []
        assert read_stack(Home(directory)).pids == {}


async def test_after_the_supervisor_is_killed_nothing_runs_and_the_next_one_has_the_same_tenant(
    directory: Path,
) -> None:
    async with _running(directory) as before:
        processes = list(read_processes(Home(directory)).values())
        os.kill(before.pids["supervisor"], signal.SIGKILL)
        await eventually(lambda: _alive(processes), until=lambda alive: not alive, timeout=_SECONDS)

    async with _running(directory) as after:
        assert (after.tenant, after.api_key, after.admin_key) == (before.tenant, before.api_key, before.admin_key)
        assert after.api_url == before.api_url


async def test_a_service_that_ends_at_once_stops_the_start_and_is_named(directory: Path) -> None:
    started = await _start(directory, FAKE_SERVICE_FAILS="notifier")
    output, _ = await asyncio.wait_for(started.communicate(), _SECONDS)

    assert started.returncode != 0
    assert b"notifier did not start: it ended with exit code 1" in output
    assert b"the fake was told to fail" in output
    assert read_processes(Home(directory)) == {}


async def test_a_stop_during_the_start_leaves_nothing(directory: Path) -> None:
    started = await _start(directory)
    supervisor = psutil.Process(started.pid)
    children = await eventually(lambda: supervisor.children(recursive=True))
    started.send_signal(signal.SIGTERM)
    code = await asyncio.wait_for(started.wait(), _SECONDS)

    assert code == 0
    assert [child for child in children if child.is_running()] == []


@asynccontextmanager
async def _running(directory: Path) -> AsyncIterator[Stack]:
    """A stack that is ready; stopped at the end, unless it was ended before."""
    process = await _start(directory)
    try:
        seen = []
        assert process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            async for line in process.stdout:
                seen.append(line.decode())
                if line.startswith(b"READY"):
                    break
            else:
                pytest.fail("".join(seen))
        yield read_stack(Home(directory))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), _SECONDS)


async def _start(directory: Path, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.fake_stack", str(directory)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_environment() | environment,
    )


async def _barnabas(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "barnabas.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """Servers that the whole session was given are not for this: it kills its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BARNABAS_")}


def _alive(processes: list[Identity]) -> list[int]:
    return [identity.pid for identity in processes if identity.find()]


async def _tables(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
    finally:
        await connection.close()


def _topics(bootstrap: str) -> Mapping[str, object]:
    return AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=20).topics
