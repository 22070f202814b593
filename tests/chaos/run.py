"""One chaos run: a whole system, a load, faults by a schedule, and then the verdict of the checker on all of it.

Everything that is drawn follows from the seed: what is asked for, what is broken and when. What the machine makes of it
is never quite the same, so a seed shows the same faults again and mostly, not always, the same violation.
"""

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec

from barnabas.client.models import TypeLimits
from barnabas.errors import BarnabasError
from tests.chaos.accepts import open_load
from tests.chaos.checker import Tally, check, tally
from tests.chaos.endpoints import RETRY_SCHEDULE_SECONDS, ChaosEndpoints, open_endpoints
from tests.chaos.faults import Faults
from tests.chaos.final import Final
from tests.chaos.ledger import LEDGER_VARIABLE, Event, own_ledger, read_ledgers
from tests.chaos.meddling import Meddling
from tests.chaos.proxy import open_proxy
from tests.chaos.rows import count_left, count_told, read_final
from tests.chaos.schedule import SERVICES, WORKERS, Planned, plan
from tests.chaos.servers import ChaosServers, open_chaos_servers
from tests.chaos.violation import Rules, Violation
from tests.chaos.wishes import ChaosTenant, wishes
from tests.support.eventually import eventually
from tests.support.stack import Stack, open_stack

APP = "tests.support.ledger_handlers:app"

# The load is in somewhat before the faults are over, so that the last ones find some of it still running.
_LOAD_SHARE = 0.85
_READY_SECONDS = 400.0
# A machine that has other things to do takes its time; one that is stuck isn't done after ten times as long either.
_SETTLE_SECONDS_MIN = 600.0
_SURVIVORS_SHOWN = 5
_DATABASE = "barnabas"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run is asked for."""

    seed: int
    seconds: float
    jobs: int
    lease_seconds: float = 10.0
    fault_window_seconds: float | None = None
    """How far from a fault its consequences may lie; None is four leases."""
    keep: Path | None = None
    """Where the ledger, the final state and the logs are kept when a promise was broken."""


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    options: RunOptions
    began: float
    planned: Sequence[Planned] = ()
    done: Sequence[Planned] = ()
    violations: list[Violation] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers that may never be given."""
    survivors: list[str] = field(default_factory=list)
    """What was still open at the end, and what the product says about it."""
    statuses: dict[int, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    """Jobs by state, as the product lists them to their tenants."""
    cancelled: int = 0
    redriven: int = 0
    load_seconds: float = 0.0
    settle_seconds: float = 0.0
    check_seconds: float = 0.0
    tally: Tally | None = None
    events: Sequence[Event] = ()
    final: Final | None = None

    @property
    def is_good(self) -> bool:
        """Whether every promise held."""
        return not (self.violations or self.wrong or self.survivors)


async def run(options: RunOptions, *, say: Callable[[str], None]) -> Outcome:
    """Carry out a run from an empty directory to the verdict. `say` hears of its steps."""
    outcome = Outcome(options, time.monotonic())
    with tempfile.TemporaryDirectory(prefix="barnabas-ledger-", ignore_cleanup_errors=True) as name:
        ledger = Path(name)
        async with open_chaos_servers(random.Random(f"proxy {options.seed}")) as servers:
            env = {
                LEDGER_VARIABLE: str(ledger),
                "BARNABAS_KAFKA": servers.kafka_address,
                "BARNABAS_POSTGRES": servers.postgres_dsn,
                "BARNABAS_LEASE_SECONDS": f"{options.lease_seconds:g}",
            }
            async with open_stack(workers=len(WORKERS), app=APP, env=env) as stack:
                say(f"seed {options.seed}: the system runs")
                await _break(stack, servers, ledger, outcome, say)
                await _judge(stack, servers, ledger, outcome)
                if not outcome.is_good:
                    _keep(options, stack, ledger, outcome)
    return outcome


async def _break(
    stack: Stack, servers: ChaosServers, ledger: Path, outcome: Outcome, say: Callable[[str], None]
) -> None:
    """Ask and break at once, until all is asked for and the faults are over; then let it settle."""
    options = outcome.options
    api = urlsplit(stack.told["api_url"]).port
    assert api is not None
    with own_ledger(ledger, "runner") as written:
        async with (
            open_proxy(api, choice=random.Random(f"door {options.seed}")) as door,
            open_endpoints(written, options.seed) as endpoints,
            open_load(f"http://{door.address}", servers.kafka_address, written) as load,
        ):
            tenants = await _tenants(stack, endpoints, options)
            wanted = wishes(tenants, options.jobs, options.seed)

            async def wiped() -> None:
                sent = await load.send_again(await _stored_keys(servers))
                say(f"Kafka was wiped: {sent} records of the intake are sent again")

            faults = Faults(
                stack,
                servers,
                {"postgres": servers.postgres_proxy, "kafka": servers.kafka_proxy, "door": door},
                written,
                random.Random(f"faults {options.seed}"),
                wiped,
            )
            outcome.planned = plan(options.seed, seconds=options.seconds, lease_seconds=options.lease_seconds)
            meddling = Meddling(load, endpoints, tenants)
            async with _meddling(meddling), asyncio.TaskGroup() as group:
                group.create_task(faults.put_on(outcome.planned, seconds=options.seconds))
                began = time.monotonic()
                await load.submit(wanted, pace=options.jobs / (_LOAD_SHARE * options.seconds))
                outcome.load_seconds = time.monotonic() - began
                say(f"all jobs are asked for after {outcome.load_seconds:.0f} s")
            outcome.done = faults.done
            say(f"{len(faults.done)} faults are over; now it settles")
            began = time.monotonic()
            await asyncio.gather(*(stack.until_ready(name, timeout=_READY_SECONDS) for name in SERVICES))
            # What was given up is an answer that may never be given, and may never be stored.
            await _settle(stack, outcome, tenants, asked=0 if load.wrong else len(wanted))
            outcome.settle_seconds = time.monotonic() - began
            outcome.told = await _told(stack, tenants)
            outcome.wrong = load.wrong
            outcome.statuses = dict(sorted(load.statuses.items()))
            outcome.cancelled, outcome.redriven = meddling.cancelled, meddling.redriven


async def _settle(stack: Stack, outcome: Outcome, tenants: Sequence[ChaosTenant], *, asked: int) -> None:
    """Wait until all that was asked for is stored and nothing moves any more; what still does then is asked about."""

    async def left(connection: Any) -> dict[str, int]:
        # First: what is stored only after the others were counted is none of their count.
        unstored = asked - await connection.fetchval("SELECT count(*) FROM idempotency_keys")
        counts = await count_left(connection) | {"unstored": max(0, unstored)}
        return {table: count for table, count in counts.items() if count}

    async with stack.database() as connection:
        try:
            limit = max(_SETTLE_SECONDS_MIN, outcome.options.seconds)
            await eventually(lambda: left(connection), until=lambda counts: not counts, timeout=limit)
        except AssertionError as late:
            outcome.survivors.append(str(late))
            outcome.survivors += await _explained(stack, connection, tenants)


async def _told(stack: Stack, tenants: Sequence[ChaosTenant]) -> dict[str, int]:
    async with AsyncExitStack() as clients:
        return await count_told([await clients.enter_async_context(stack.client(tenant.key)) for tenant in tenants])


async def _explained(stack: Stack, connection: Any, tenants: Sequence[ChaosTenant]) -> list[str]:
    keys = {tenant.id: tenant.key for tenant in tenants}
    rows = await connection.fetch("SELECT tenant_id::text, job_id::text FROM jobs LIMIT $1", _SURVIVORS_SHOWN)
    told = []
    for tenant, job in rows:
        async with stack.client(keys[tenant]) as client:
            try:
                told.append(f"{job}: {msgspec.json.encode(await client.explain(job)).decode()}")
            except BarnabasError as error:
                told.append(f"{job}: no explanation: {error}")
    return told


async def _judge(stack: Stack, servers: ChaosServers, ledger: Path, outcome: Outcome) -> None:
    async with stack.database() as connection:
        outcome.final = await read_final(connection, servers.kafka_address, counted=outcome.told)
    began = time.monotonic()
    outcome.events = await asyncio.to_thread(read_ledgers, ledger)
    window = outcome.options.fault_window_seconds
    rules = Rules(fault_window_seconds=4 * outcome.options.lease_seconds if window is None else window)
    outcome.violations = await asyncio.to_thread(check, outcome.events, outcome.final, rules)
    outcome.tally = await asyncio.to_thread(tally, outcome.events, outcome.final, rules)
    outcome.check_seconds = time.monotonic() - began


def _keep(options: RunOptions, stack: Stack, ledger: Path, outcome: Outcome) -> None:
    """The evidence, for whoever looks for the cause."""
    if options.keep is None:
        return
    options.keep.mkdir(parents=True, exist_ok=True)
    for name, source in (("ledger", ledger), ("logs", stack.directory / "logs")):
        shutil.rmtree(options.keep / name, ignore_errors=True)
        shutil.copytree(source, options.keep / name)
    if outcome.final is not None:
        (options.keep / "final.json").write_bytes(msgspec.json.encode(outcome.final))


async def _tenants(stack: Stack, endpoints: ChaosEndpoints, options: RunOptions) -> list[ChaosTenant]:
    """Six of them, each with something of its own."""
    # What the limit of starts lets through is a little more than what comes, so that it bites and doesn't last.
    starts = max(60, int(1.2 * 60 * options.jobs / 6 / (_LOAD_SHARE * options.seconds)))
    kinds: dict[str, tuple[dict[str, Any], int]] = {
        "running": ({"concurrency": 20}, 1),
        "starts": ({"starts_per_minute": starts}, 1),
        "types": ({"types": {"effect": TypeLimits(concurrency=15)}}, 1),
        "ordered": ({}, 1),
        "deaf": ({}, 0),
        "loud": ({"weight": 2}, 2),
    }
    made = []
    for name, (limits, listening) in kinds.items():
        tenant_id, key = await stack.tenant(f"chaos-{name}")
        if limits:
            async with stack.admin() as admin:
                await admin.set_limits(tenant_id, **limits)
        made.append(ChaosTenant(name, tenant_id, key, is_ordered=name == "ordered"))
        async with stack.client(key) as client:
            for number in range(listening):
                path = f"/{name}/{number}"
                endpoint = await client.create_endpoint(
                    endpoints.url(path), retry_schedule_seconds=list(RETRY_SCHEDULE_SECONDS)
                )
                assert endpoint.secret is not None
                endpoints.listen(path, tenant=tenant_id, endpoint=str(endpoint.id), secret=endpoint.secret)
    return made


@asynccontextmanager
async def _meddling(meddling: Meddling) -> AsyncIterator[None]:
    task = asyncio.create_task(meddling.meddle())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _stored_keys(servers: ChaosServers) -> set[str]:
    """The idempotency keys that are known, past every proxy and as soon as Postgres answers."""
    dsn = f"{servers.postgres.superuser_dsn.rsplit('/', 1)[0]}/{_DATABASE}"

    async def read() -> set[str] | None:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(dsn, timeout=10)
            try:
                return {row["key"] for row in await connection.fetch("SELECT key FROM idempotency_keys")}
            finally:
                connection.terminate()
        return None

    keys: set[str] | None = await eventually(read, until=lambda found: found is not None, timeout=_READY_SECONDS)
    assert keys is not None, "it waited until they were read"
    return keys
