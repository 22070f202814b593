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
from tests.support.servers import Servers
from tests.support.stack import lives

# Only a failure takes that long: two servers and five processes start, which a starved machine does slowly.
_SECONDS = 180

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Home, Stack]]:
    """A stack with servers of its own, because its tests kill them."""
    home = Home(tmp_path_factory.mktemp("stack") / ".barnabas")
    async with _running(home) as stack:
        yield home, stack


async def test_the_file_says_where_everything_is_and_only_its_owner_may_read_it(running: tuple[Home, Stack]) -> None:
    home, stack = running

    assert home.stack.stat().st_mode & 0o777 == 0o600
    assert set(stack.ops_urls) == {"ingest", "worker", "notifier", "retry_scheduler"}
    assert set(stack.pids) == {
        *("supervisor", "kafka", "postgres"),
        *("ingest", "worker", "worker_2", "notifier", "retry_scheduler"),
    }
    assert await _tables(stack.postgres) > 0
    assert "barnabas.jobs.low" in _topics(stack.kafka)


async def test_a_second_up_says_so_and_does_no_harm(running: tuple[Home, Stack]) -> None:
    home, stack = running

    second = await _barnabas("up", "--data-dir", str(home.root))

    assert second.returncode == 0
    assert "already runs" in second.stdout
    assert stack.api_url in second.stdout
    assert read_stack(home) == stack


async def test_what_dies_is_started_again_where_it_was_and_said(running: tuple[Home, Stack]) -> None:
    home, _ = running
    before = read_stack(home)
    victims = ("worker", "kafka", "postgres")
    for victim in victims:
        os.kill(before.pids[victim], signal.SIGKILL)

    said = await eventually(
        lambda: home.log("supervisor").read_text(encoding="utf-8"),
        until=lambda text: all(f"{victim} runs again" in text for victim in victims),
        timeout=_SECONDS,
    )
    after = await eventually(
        lambda: read_stack(home),
        until=lambda stack: all(stack.pids.get(victim) != before.pids[victim] for victim in victims),
    )

    assert (after.kafka, after.postgres, after.ops_urls) == (before.kafka, before.postgres, before.ops_urls)
    assert after.pids["ingest"] == before.pids["ingest"]
    assert await _tables(after.postgres) > 0
    assert "barnabas.jobs.low" in _topics(after.kafka)
    assert "worker was ended by signal 9; starting it again in 0.5 s" in said


async def test_nothing_outlives_a_killed_supervisor_and_data_and_tenant_do(tmp_path: Path) -> None:
    home = Home(tmp_path / ".barnabas")
    async with _running(home) as before:
        processes = list(read_processes(home).values())
        os.kill(before.pids["supervisor"], signal.SIGKILL)
        await eventually(lambda: _alive(processes), until=lambda alive: not alive, timeout=_SECONDS)

    async with _running(home) as after:
        processes = list(read_processes(home).values())
        down = await _barnabas("down", "--data-dir", str(home.root))
        again = await _barnabas("down", "--data-dir", str(home.root))

        assert (after.tenant, after.api_key, after.admin_key) == (before.tenant, before.api_key, before.admin_key)
        assert (after.api_url, after.kafka, after.postgres) == (before.api_url, before.kafka, before.postgres)
        assert (down.returncode, again.returncode) == (0, 0)
        assert "Nothing was running" in again.stdout
        assert _alive(processes) == []
        assert read_stack(home).pids == {}


async def test_a_service_that_ends_at_once_stops_the_start_and_is_named(servers: Servers, tmp_path: Path) -> None:
    home = Home(tmp_path / ".barnabas")
    started = await _start(home, FAKE_SERVICE_FAILS="notifier", **_given(servers))
    output, _ = await asyncio.wait_for(started.communicate(), _SECONDS)

    assert started.returncode != 0
    assert b"notifier did not start: it ended with exit code 1" in output
    assert b"the fake was told to fail" in output
    assert read_processes(home) == {}


async def test_with_servers_that_already_run_only_services_are_started(servers: Servers, tmp_path: Path) -> None:
    home = Home(tmp_path / ".barnabas")
    async with _running(home, **_given(servers)) as stack:
        assert stack.kafka == servers.kafka
        assert not {"kafka", "postgres"} & set(stack.pids)
        assert await _tables(stack.postgres) > 0


async def test_a_stop_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    started = await _start(Home(tmp_path / ".barnabas"))
    supervisor = psutil.Process(started.pid)
    children = await eventually(lambda: supervisor.children(recursive=True))
    started.send_signal(signal.SIGTERM)
    code = await asyncio.wait_for(started.wait(), _SECONDS)

    assert code == 0
    await eventually(lambda: [child for child in children if lives(child)], until=lambda left: left == [])


@asynccontextmanager
async def _running(home: Home, **environment: str) -> AsyncIterator[Stack]:
    """A stack that is ready; stopped at the end, unless it was ended before."""
    process = await _start(home, **environment)
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
        yield read_stack(home)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), _SECONDS)


async def _start(home: Home, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.fake_stack", str(home.root)),
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


def _given(servers: Servers) -> dict[str, str]:
    return {"BARNABAS_KAFKA": servers.kafka, "BARNABAS_POSTGRES": servers.superuser_dsn}


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
    return AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=60).topics
