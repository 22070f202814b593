"""What several scenarios need of a running system: one that runs already or one of their own, metrics, processes."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import msgspec
import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from barnabas_local import ports
from tests.support.eventually import eventually
from tests.support.stack import Stack, open_stack

APP = "tests.support.handlers:app"
"""The handlers of these systems beside the built-in ones."""
SERVICES = ("ingest", "worker", "notifier", "retry-scheduler")
T = TypeVar("T")

_POLL_SECONDS = 0.05
_GENERATOR_SECONDS = 120.0
_STOP_SECONDS = 60.0


@asynccontextmanager
async def a_stack(running: Stack | None) -> AsyncIterator[Stack]:
    """The one that runs already, or one of this block's own: with two workers, and the handlers of these systems."""
    if running is not None:
        yield running
        return
    async with open_stack(workers=2, app=APP) as stack:
        yield stack


async def until_well(stack: Stack, *, workers: int = 2) -> None:
    """Wait until every service is ready: a scenario begins with a system that is well, and leaves one behind."""
    names = ["ingest", *(f"worker-{n}" if n > 1 else "worker" for n in range(1, workers + 1)), *SERVICES[2:]]

    async def unwell() -> dict[str, str]:
        # By name, with the reasons that each gives: that is what a failure shows.
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            answers = {}
            for name in names:
                try:
                    answer = await http.get(f"{ops_url(stack, name)}/readyz")
                except httpx.HTTPError as error:
                    answers[name] = repr(error)
                else:
                    if answer.status_code != httpx.codes.OK:
                        answers[name] = answer.text
            return answers

    await eventually(unwell, until=lambda found: not found, timeout=120)


async def until_replaced(stack: Stack, pid: int) -> None:
    """Wait until the supervisor has another process in the place of this one."""
    await eventually(lambda: pid not in stack.told["pids"].values(), timeout=90)


def ops_url(stack: Stack, process: str) -> str:
    """Where a process of the stack answers for itself."""
    return str(stack.told["process_urls"][process.replace("-", "_")])


async def metric(ops_url: str, name: str, *labels: str) -> float:
    """A metric of one process, summed over the children that have all of these labels."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        text = (await http.get(f"{ops_url}/metrics")).text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in labels)
    )


async def postgres_answers(dsn: str, *, timeout: float = 120.0) -> float:
    """Wait until Postgres takes a connection and a statement; the moment, monotonic."""
    deadline = time.monotonic() + timeout
    while True:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(dsn, timeout=5)
            try:
                await connection.fetchval("SELECT 1")
                return time.monotonic()
            finally:
                connection.terminate()
        assert time.monotonic() < deadline, f"Postgres did not answer within {timeout:g} s"
        await asyncio.sleep(_POLL_SECONDS)


async def kafka_answers(bootstrap: str, *, timeout: float = 120.0) -> float:
    """Wait until Kafka answers; the moment, monotonic."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})

    def answers() -> bool:
        try:
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    await eventually(lambda: asyncio.to_thread(answers), timeout=timeout)
    return time.monotonic()


def through(dsn: str, address: str) -> str:
    """The same login by way of another address: a proxy's."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{address}"))


@asynccontextmanager
async def held_down(stack: Stack, server: str) -> AsyncIterator[None]:
    """kill -9 a server, and let somebody else sit on its port, who hangs up at once: nobody can start it anew.

    After the block the supervisor starts it by itself, at its next try.
    """
    told = stack.told
    address = told["kafka"] if server == "kafka" else told["postgres"].rpartition("@")[2].partition("/")[0]
    port = int(address.rpartition(":")[2])
    stack.signal(server, signal.SIGKILL)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def sit_down() -> asyncio.Server | None:
        # The threads of a killed JVM take a moment to let go of its port, and a new one takes longer to be there.
        with suppress(OSError):
            return await asyncio.start_server(hang_up, ports.LOOPBACK, port)
        return None

    squatter = await eventually(sit_down, timeout=60)
    assert squatter is not None
    try:
        yield
    finally:
        squatter.close()
        await squatter.wait_closed()


@asynccontextmanager
async def a_directory() -> AsyncIterator[Path]:
    """One for servers of one's own. Others may enter: Postgres refuses root, and then runs as somebody else."""
    directory = Path(tempfile.mkdtemp(prefix="barnabas-scenario-"))
    os.chmod(directory, 0o755)  # noqa: PTH101 - a moment's system call, and no path of the event loop's
    try:
        yield directory
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Extra:
    """A process beside the stack's own."""

    pid: int
    ops_url: str


@asynccontextmanager
async def another(stack: Stack, name: str, env: Mapping[str, str]) -> AsyncIterator[Extra]:
    """One more process of a service, with the environment of the stack's own and these changes, once it is ready.

    It is told to stop at the end, however the block ends, and killed if it doesn't.
    """
    port = ports.free_port()
    own = psutil.Process(stack.pid(name)).environ() | {"BARNABAS_OPS_PORT": str(port)} | dict(env)
    with (stack.directory / "logs" / f"{name}-extra-{port}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"barnabas_{name.replace('-', '_')}.main", env=own, stdout=log, stderr=log
        )
    extra = Extra(process.pid, f"http://{ports.LOOPBACK}:{port}")
    try:
        await eventually(lambda: _is_ready(extra.ops_url), timeout=120)
        yield extra
    finally:
        if process.returncode is None:
            # It may stand still: whoever stopped it may have failed before it let it go on.
            os.kill(process.pid, signal.SIGCONT)
            process.terminate()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _is_ready(ops_url: str) -> bool:
    with suppress(httpx.HTTPError):
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"{ops_url}/readyz")).status_code == httpx.codes.OK
    return False


async def generate(module: str, order: msgspec.Struct, kind: type[T], *, seconds: float) -> T:
    """Run a load generator with an order on its stdin; its answer. It has a minute beyond its own time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds + _GENERATOR_SECONDS):
            output, _ = await process.communicate(msgspec.json.encode(order))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{module} ended with {process.returncode}"
    return msgspec.json.decode(output, type=kind)
