"""A backup by `pg_dump`, restored into another Postgres beside an empty Kafka: open jobs go on without Kafka's help.

The dump is taken while jobs come in and run. Of the first system nothing but the dump is kept.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg

from barnabas.client.errors import TransientProblemError
from barnabas_local.database import DATABASE, drop_database, prepare_database
from barnabas_local.postgres import Postgres
from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import deliveries, settled
from tests.chaos.scenarios.door import Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import a_directory, until_well
from tests.chaos.scenarios.replicas import run_program
from tests.support.eventually import at_last
from tests.support.receiver import Receiver, open_receiver
from tests.support.stack import Stack, open_stack


@dataclass(frozen=True, slots=True)
class Plan:
    """What is open when the dump is taken."""

    waiting: int
    """Jobs of a queue that no worker serves before the restore."""
    pace: float
    seconds: float
    due_seconds: float
    """After which the scheduled ones are due."""


QUICK = Plan(waiting=200, pace=60.0, seconds=1.0, due_seconds=15.0)
FULL = Plan(waiting=20_000, pace=200.0, seconds=30.0, due_seconds=120.0)

_QUEUE = "later"


@dataclass(frozen=True, slots=True)
class Kept:
    """What the dump holds, read from the restored rows before any service runs."""

    open: frozenset[str]
    ended: frozenset[str]


async def measure(plan: Plan) -> list[Figure]:
    """Dump under load, throw the first system away, restore, and run what is open."""
    async with a_directory() as directory, open_receiver() as receiver:
        dump = directory / "barnabas.dump"
        async with _postgres(directory / "first") as first, open_stack(env=_at(first)) as stack:
            tenants, known = await _dumped(stack, receiver, plan, dump, first)
        async with _postgres(directory / "second") as second:
            kept = await _restored(second, dump, tenants)
            env = _at(second) | {"BARNABAS_QUEUES": f"default,{_QUEUE}"}
            # The owner's first key is another one here; the tenants' keys are rows, and go on.
            async with open_stack(env=env) as stack:
                await until_well(stack, workers=1)
                async with stack.client(tenants[0].key) as client:
                    new = await client.submit("echo", "after the restore")
                    await client.wait(new.id, timeout=120)
                async with stack.database() as database:
                    books = await settled(database, tenants)
                    delivered, _ = await deliveries(database, tenants, books)
    ended = {row.job for row in books.rows}
    return [
        once("restored.known", "jobs accepted before the dump began", "jobs", len(known)),
        once("restored.missing", "of those, not in the dump", "jobs", len(known - kept.open - kept.ended)),
        once("restored.open", "jobs that were open in the dump", "jobs", len(kept.open)),
        once("restored.vanished", "ended jobs of the dump that are gone", "jobs", len(kept.ended - ended)),
        # A job accepted while the dump was taken may be in it or not; whatever is in it has to go on.
        *books.figures("restored", kept.open),
        once("restored.undelivered", "ended jobs without their webhook", "jobs", len(books.rows) - delivered),
    ]


async def _dumped(
    stack: Stack, receiver: Receiver, plan: Plan, dump: Path, postgres: Postgres
) -> tuple[list[Tenant], set[str]]:
    """The tenants, and the jobs that were accepted before the dump began."""
    await until_well(stack, workers=1)
    tenants = await make_tenants(stack, 4, "restored")
    known: set[str] = set()
    async with stack.client(tenants[0].key) as client:
        # The first job makes the queue and its topics, which takes a while on a busy machine.
        first = await at_last(
            lambda: client.submit("echo", "first", queue=_QUEUE), refused=TransientProblemError, timeout=120
        )
        known.add(str(first.id))
    for tenant in tenants:
        async with stack.client(tenant.key) as client:
            await client.create_endpoint(receiver.url(f"/{tenant.id}"), retry_schedule_seconds=[1, 2, 5, 10])
            for start in range(0, plan.waiting // len(tenants), 500):
                count = min(500, plan.waiting // len(tenants) - start)
                jobs = [{"type": "echo", "payload": number, "queue": _QUEUE} for number in range(count)]
                known |= {str(verdict.id) for verdict in await client.submit_batch(jobs)}
            # Some that are due only after the restore, and some that run while the dump is taken.
            known |= {str((await client.submit("echo", 1, delay_seconds=plan.due_seconds)).id)}
            known |= {str((await client.submit("sleep", {"seconds": 10})).id)}
    async with open_door(stack, tenants, pace=plan.pace) as door:
        await door.until_accepting()
        await asyncio.sleep(plan.seconds)
        known |= set(door.accepted)
        source = postgres.superuser_dsn.rpartition("/")[0] + f"/{DATABASE}"
        await asyncio.to_thread(run_program, "pg_dump", "--format=custom", f"--file={dump}", source)
    return tenants, known


async def _restored(postgres: Postgres, dump: Path, tenants: list[Tenant]) -> Kept:
    """As the manual says: the logins are made, the empty database is dropped, the dump makes its own."""
    await prepare_database(postgres.superuser_dsn)
    await drop_database(postgres.superuser_dsn, DATABASE)
    target = f"--dbname={postgres.superuser_dsn}"
    await asyncio.to_thread(run_program, "pg_restore", "--create", "--exit-on-error", target, str(dump))
    connection = await asyncpg.connect(postgres.superuser_dsn.rpartition("/")[0] + f"/{DATABASE}")
    try:
        ids = [UUID(tenant.id) for tenant in tenants]
        open_jobs = await connection.fetch("SELECT job_id FROM jobs WHERE tenant_id = ANY ($1)", ids)
        ended = await connection.fetch("SELECT job_id FROM job_results WHERE tenant_id = ANY ($1)", ids)
    finally:
        await connection.close()
    return Kept(frozenset(str(row["job_id"]) for row in open_jobs), frozenset(str(row["job_id"]) for row in ended))


def _at(postgres: Postgres) -> dict[str, str]:
    return {"BARNABAS_POSTGRES": postgres.superuser_dsn}


@asynccontextmanager
async def _postgres(directory: Path) -> AsyncIterator[Postgres]:
    server = Postgres(directory, directory.with_suffix(".log"), shared_buffers_mb=128)
    try:
        await server.start()
        yield server
    finally:
        await server.stop(at_once=True)
