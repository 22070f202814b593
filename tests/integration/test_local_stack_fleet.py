"""Workers that come and go, with stand-ins for them: as many as are advised, within the range, none killed."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from barnabas_local.fleet import Advice, Fleet, read_advice
from barnabas_local.services import ServiceProcess
from tests.support.eventually import eventually

_FAKE = Path(__file__).parents[1] / "support" / "fake_service.py"


@asynccontextmanager
async def fleet_of(logs: Path, *, least: int, most: int) -> AsyncIterator[tuple[Fleet, asyncio.TaskGroup, list[str]]]:
    """A fleet with no workers yet; those that are left are stopped at the end."""
    said: list[str] = []

    def make(name: str, port: int) -> ServiceProcess:
        env = {"BARNABAS_OPS_PORT": str(port), "BARNABAS_DRAIN_SECONDS": "5"}
        argv = (sys.executable, str(_FAKE), "worker")
        return ServiceProcess(name=name, kind="worker", argv=argv, env=env, ops_port=port, log=logs / f"{name}.log")

    fleet = Fleet(
        services=[], least=least, most=most, make=make, say=said.append, changed=lambda: said.append("changed")
    )
    async with asyncio.TaskGroup() as group:
        try:
            yield fleet, group, said
        finally:
            for keeping in fleet._keeping.values():
                keeping.cancel()
            await asyncio.gather(*(service.stop() for service in fleet.services))


def names(fleet: Fleet) -> list[str]:
    return [service.name for service in fleet.workers]


async def test_as_many_as_are_advised_run_and_the_newest_go_first(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, least=1, most=4) as (fleet, group, said):
        await fleet.follow(group, Advice(3, "backlog"))
        three = list(fleet.workers)
        for service in three:
            await service.ready(timeout=60)
        await fleet.follow(group, Advice(1, "quiet"))
        one = names(fleet)
        await eventually(lambda: len(fleet.services) == 1)

        assert [service.name for service in three] == ["worker", "worker-2", "worker-3"]
        assert one == ["worker"]
        # By themselves, on SIGTERM.
        assert [service.child.exit_code() for service in three[1:] if service.child] == [0, 0]
        assert "3 workers instead of 0: backlog" in said
        assert "worker-3 has drained" in said
        assert len({service.ops_port for service in three}) == 3


async def test_advice_beyond_the_range_is_bounded(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, least=1, most=2) as (fleet, group, _):
        await fleet.follow(group, Advice(50, "backlog"))
        most = names(fleet)
        await fleet.follow(group, Advice(0, "quiet"))

        assert (most, names(fleet)) == (["worker", "worker-2"], ["worker"])


async def test_while_one_drains_its_name_is_not_given_away(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, least=1, most=3) as (fleet, group, _):
        await fleet.follow(group, Advice(2, "backlog"))
        draining = fleet.workers[1]
        await draining.ready(timeout=60)
        assert draining.child is not None
        draining.child.send(signal.SIGSTOP)
        await fleet.follow(group, Advice(1, "quiet"))
        await fleet.follow(group, Advice(2, "backlog"))
        during = names(fleet)
        draining.child.send(signal.SIGCONT)
        await eventually(lambda: draining not in fleet.services)

        assert during == ["worker", "worker-3"]


async def test_one_that_is_killed_comes_back_and_one_that_was_let_go_does_not(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, least=1, most=2) as (fleet, group, said):
        await fleet.follow(group, Advice(2, "backlog"))
        first, second = fleet.workers
        assert first.child is not None
        assert second.child is not None
        killed = first.child.pid
        first.child.send(signal.SIGKILL)
        await fleet.follow(group, Advice(1, "quiet"))
        await eventually(lambda: first.child, until=lambda child: child is not None and child.pid != killed)
        await eventually(lambda: len(fleet.services) == 1)

        assert "worker runs again" in said
        assert not any(line.startswith("worker-2 was ended") for line in said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('barnabas_workers_desired 3.0\nbarnabas_workers_reason{reason="backlog"} 1.0\n', Advice(3, "backlog")),
        # What one shows that doesn't lead, and what another release shows.
        ("barnabas_workers_desired 0.0\n", None),
        ('barnabas_workers_desired 0.0\nbarnabas_workers_reason{reason="quiet"} 1.0\n', None),
        ("something_else 1.0\n", None),
    ],
)
async def test_the_advice_is_read_from_the_ops_port_and_no_answer_is_none(text: str, expected: Advice | None) -> None:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
            """Not a word."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        told = await read_advice(client, url)
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        silent = await read_advice(client, url)

    assert (told, silent) == (expected, None)
