"""The whole system as a user has it: `barnabas up` in a directory of its own, and its processes to be killed by pid."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from barnabas.client.api import AsyncClient
from tests.support.eventually import eventually

# What a service may take to drain, Kafka and Postgres to stop, one after the other.
_UP_SECONDS = _DOWN_SECONDS = 120.0
_TROUBLES_MAX = 30


@dataclass(slots=True)
class Stack:
    """A running system."""

    directory: Path

    @property
    def told(self) -> dict[str, Any]:
        """What stack.json says now."""
        told: dict[str, Any] = json.loads((self.directory / "stack.json").read_text())
        return told

    def client(self, api_key: str | None = None) -> AsyncClient:
        """A client, of the demo tenant unless told otherwise."""
        told = self.told
        return AsyncClient(told["api_url"], api_key or told["api_key"])

    def admin(self) -> AsyncClient:
        """A client with the admin key."""
        return self.client(self.told["admin_key"])

    async def tenant(self, name: str, *, concurrency: int | None = None) -> tuple[str, str]:
        """A new tenant's id and key."""
        async with self.admin() as admin:
            tenant = await admin.create_tenant(name)
            key = await admin.create_key(tenant.id, "tests")
            if concurrency is not None:
                await admin.set_limits(tenant.id, concurrency=concurrency)
        assert key.key is not None
        return str(tenant.id), key.key

    def pid(self, name: str) -> int:
        """The process id of a service, of `kafka` or of `postgres`."""
        return int(self.told["pids"][name.replace("-", "_")])

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to one process; returns its pid."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    async def kill(self, name: str) -> None:
        """kill -9, and wait until the supervisor has started it anew."""
        # It may be on its way up from an earlier death.
        before = await eventually(lambda: self._running(name), timeout=120)
        assert before is not None
        # Or it ended by itself in this moment.
        with suppress(ProcessLookupError):
            os.kill(before, signal.SIGKILL)
        await eventually(lambda: self._running(name) not in (None, before), timeout=120)

    async def until_ready(self, name: str, timeout: float = 120.0) -> None:
        """Wait until a service's ops port says that it is ready."""

        async def ready() -> bool:
            with suppress(httpx.HTTPError, KeyError):
                async with httpx.AsyncClient(trust_env=False) as http:
                    return (
                        await http.get(f"{self.told['process_urls'][name.replace('-', '_')]}/readyz")
                    ).status_code == 200
            return False

        await eventually(ready, timeout=timeout)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Any]:
        """A connection that sees every tenant, for assertions only."""
        connection = await asyncpg.connect(_engine_dsn(self.pid("ingest")))
        try:
            yield connection
        finally:
            await connection.close()

    def log(self, name: str) -> str:
        """The log of one process."""
        return (self.directory / "logs" / f"{name}.log").read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Every live process of this stack, found by its directory or its parent."""
        found = []
        with suppress(FileNotFoundError, KeyError):
            for pid in self.told["pids"].values():
                # It may have ended by itself.
                with suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(pid))
        return found

    def _running(self, name: str) -> int | None:
        with suppress(FileNotFoundError, KeyError, json.JSONDecodeError):
            pid = self.pid(name)
            with suppress(psutil.NoSuchProcess):
                return pid if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
        return None


def _engine_dsn(pid: int) -> str:
    # The engine login sees all tenants; its password is known to the services only.
    return psutil.Process(pid).environ()["BARNABAS_POSTGRES"]


async def barnabas(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout: float = _UP_SECONDS,
    python: str | Path = sys.executable,
) -> str:
    """Run the command; its output, or a failure with it."""
    process = await asyncio.create_subprocess_exec(
        python,
        "-m",
        "barnabas.cli.main",
        *arguments,
        env=dict(os.environ) | dict(env or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(timeout):
        output, _ = await process.communicate()
    text = output.decode(errors="replace")
    assert process.returncode == 0, f"barnabas {' '.join(arguments)} ended with {process.returncode}:\n{text}"
    return text


def lives(process: psutil.Process) -> bool:
    """Whether it runs: one that has ended and that nobody has waited for doesn't."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def show_troubles(directory: Path) -> None:
    """What the logs say went wrong, for whoever reads the failed test."""
    for log in sorted((directory / "logs").glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()
        troubles = [line for line in lines if '"level":"error"' in line or '"level":"warning"' in line]
        for line in troubles[-_TROUBLES_MAX:]:
            print(f"{log.stem}: {line[:600]} ... {line[-600:]}" if len(line) > 1200 else f"{log.stem}: {line}")


def _own_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="barnabas-stack-"))
    # Other users may enter: Postgres refuses root, and then runs as somebody else.
    directory.chmod(0o755)
    return directory


@asynccontextmanager
async def open_stack(
    *,
    workers: int | str = 1,
    ingest: int = 1,
    app: str | None = None,
    env: Mapping[str, str] | None = None,
    places: Mapping[str, Path] | None = None,
) -> AsyncIterator[Stack]:
    """A system of one's own on free ports; stopped, checked for leftovers and thrown away at the end.

    `places` are directories elsewhere for the data of `kafka` or `postgres`.
    """
    directory = _own_directory()
    for name, elsewhere in (places or {}).items():
        (directory / name).symlink_to(elsewhere)
    options = ["--detach", "--port", "0", "--workers", str(workers), "--ingest", str(ingest)]
    options += ["--data-dir", str(directory)]
    settings = {"BARNABAS_KAFKA": "", "BARNABAS_POSTGRES": ""} | dict(env or {})
    try:
        await barnabas("up", *options, *(["--app", app] if app else []), env=settings)
        stack = Stack(directory)
        try:
            yield stack
        finally:
            show_troubles(directory)
            running = stack.processes()
            await barnabas("down", "--data-dir", str(directory), timeout=_DOWN_SECONDS)
            left = [f"{process.pid} {process.name()}" for process in running if lives(process)]
            assert not left, f"`barnabas down` left processes behind: {left}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)
