"""The services as child processes: what each is started with, and how one tells that it is ready.

Settings reach them by environment only. What a developer has set for a service (a lease length, a log level) goes
through; what the stack decides (addresses, ports, logins) does not.
"""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from barnabas_local import ports
from barnabas_local.database import Logins
from barnabas_local.errors import ServerStartError
from barnabas_local.processes import Child, spawn

DRAIN_SECONDS = 10.0
"""How long a service of the local stack may take to finish what it holds, unless BARNABAS_DRAIN_SECONDS says more."""

# What a service may take beyond its drain to close its connections; it ends itself before that.
_CLOSE_SECONDS = 17.0
_POLL_SECONDS = 0.1
_PROBE_SECONDS = 2.0

_DECIDED_BY_THE_STACK = frozenset(
    f"BARNABAS_{name}"
    for name in (
        "KAFKA",
        "POSTGRES",
        "POSTGRES_API",
        "OPS_HOST",
        "OPS_PORT",
        "HTTP_HOST",
        "HTTP_PORT",
        "HTTP_SHARED",
        "ADMIN_KEY",
        "API_KEY",
        "API_URL",
        "APP",
        "HOST",
        "PORT",
        "WORKERS",
        "WORKERS_MIN",
        "WORKERS_MAX",
        "INGEST",
        "DATA_DIR",
        "TEST_CONTAINERS",
    )
)

KIND_OF_WORKERS = "worker"


@dataclass(slots=True)
class ServiceProcess:
    """One replica of one service. A restart takes the same ports."""

    name: str
    kind: str
    """The service, as a key of `ops_urls`: a second worker is called worker-2 and is of kind worker."""
    argv: Sequence[str]
    env: Mapping[str, str]
    ops_port: int
    log: Path
    child: Child | None = field(default=None, init=False)

    @property
    def ops_url(self) -> str:
        """Where its health and metrics are."""
        return f"http://{ports.LOOPBACK}:{self.ops_port}"

    async def start(self) -> None:
        """Start the process; `ready` says when it works."""
        self.child = spawn(self.name, self.argv, env=self.env, log=self.log)

    async def ready(self, *, timeout: float) -> None:
        """Wait until it says that it is ready; raises with the end of its log if it ends or stays silent instead."""
        assert self.child is not None
        deadline = time.monotonic() + timeout
        async with httpx.AsyncClient(timeout=_PROBE_SECONDS, trust_env=False) as client:
            while time.monotonic() < deadline:
                code = self.child.exit_code()
                if code is not None:
                    reason = f"it ended with exit code {code}"
                    raise ServerStartError(name=self.name, reason=reason, log_tail=self.child.log_tail())
                if await _says_ready(client, self.ops_url):
                    return
                await asyncio.sleep(_POLL_SECONDS)
        raise ServerStartError(
            name=self.name, reason=f"it was not ready within {timeout:g} s", log_tail=self.child.log_tail()
        )

    async def stop(self) -> None:
        """Let it drain; what is left after its own deadline is killed."""
        if self.child is not None:
            seconds = float(self.env["BARNABAS_DRAIN_SECONDS"]) + _CLOSE_SECONDS
            await self.child.stop(((signal.SIGTERM, seconds),))


def plan_services(
    *,
    kafka: str,
    logins: Logins,
    http_host: str,
    http_port: int,
    ops_ports: Mapping[str, int],
    admin_key: str,
    app: str | None,
    logs: Path,
    topic_replication: int = 1,
    workers_range: tuple[int, int] | None = None,
) -> list[ServiceProcess]:
    """The services of one stack, one per name in `ops_ports`; names beyond the four are further workers or ingests.

    `workers_range` is what the scaling may ask for, where the stack scales itself.
    """
    common = {name: value for name, value in os.environ.items() if name not in _DECIDED_BY_THE_STACK}
    # Lines reach a log file by the time a reader looks for them, not when a buffer is full.
    common |= {"PYTHONUNBUFFERED": "1", "BARNABAS_KAFKA": kafka, "BARNABAS_POSTGRES": logins.engine_dsn}
    common["BARNABAS_TOPIC_REPLICATION"] = str(topic_replication)
    common.setdefault("BARNABAS_LOG_FORMAT", "json")
    common.setdefault("BARNABAS_DRAIN_SECONDS", f"{DRAIN_SECONDS:g}")
    common.setdefault("BARNABAS_ALLOW_PRIVATE_ENDPOINTS", "true")
    own = {
        "ingest": {
            "BARNABAS_HTTP_HOST": http_host,
            "BARNABAS_HTTP_PORT": str(http_port),
            "BARNABAS_ADMIN_KEY": admin_key,
            "BARNABAS_POSTGRES_API": logins.api_dsn,
        },
        "worker": {"BARNABAS_APP": app} if app else {},
        "retry-scheduler": {},
    }
    if any(name.startswith("ingest-") for name in ops_ports):
        own["ingest"]["BARNABAS_HTTP_SHARED"] = "true"
    if workers_range is not None:
        least, most = workers_range
        own["retry-scheduler"] |= {"BARNABAS_WORKERS_MIN": str(least), "BARNABAS_WORKERS_MAX": str(most)}
    planned = []
    for name, ops_port in ops_ports.items():
        kind = re.sub(r"^(worker|ingest)-\d+$", r"\1", name)
        env = common | own.get(kind, {}) | {"BARNABAS_OPS_PORT": str(ops_port)}
        argv = (sys.executable, "-m", f"barnabas_{kind.replace('-', '_')}.main")
        planned.append(
            ServiceProcess(
                name=name, kind=kind.replace("-", "_"), argv=argv, env=env, ops_port=ops_port, log=logs / f"{name}.log"
            )
        )
    return planned


def service_names(*, workers: int, ingest: int = 1) -> list[str]:
    """The processes of a stack with so many workers and ingests, in the order in which they are started."""
    ingests = [_numbered("ingest", number) for number in range(1, ingest + 1)]
    return [*ingests, *(worker_name(number) for number in range(1, workers + 1)), "notifier", "retry-scheduler"]


def worker_name(number: int) -> str:
    """What the worker of that number is called; the first is 1."""
    return _numbered("worker", number)


def _numbered(kind: str, number: int) -> str:
    return kind if number == 1 else f"{kind}-{number}"


async def _says_ready(client: httpx.AsyncClient, ops_url: str) -> bool:
    try:
        return (await client.get(f"{ops_url}/readyz")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
