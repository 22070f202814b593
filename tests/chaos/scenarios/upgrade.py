"""A release replaces the one before it under load, is taken back, and comes again: nobody has to stop for it.

As docs/operations.md says: the schema is expanded while the old programs work, then the programs are replaced. Taking a
release back replaces the programs only. Whatever the next release brings, more migrations are rehearsed with it: a
column more for every table there is, and a table more. They are applied while somebody takes a backup, whose
transaction holds a lock on every table for as long as it lasts.
"""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from barnabas.postgres import migrate
from barnabas_local.database import OWNER
from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import Books, deliveries, settled, told_events
from tests.chaos.scenarios.door import NO_ANSWER, Answer, Door, Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import a_directory
from tests.chaos.scenarios.releases import Release, last_release, next_release
from tests.chaos.scenarios.rolling import KINDS, Rollout, open_rollout
from tests.support.eventually import eventually
from tests.support.receiver import Behaviour, Exchange, Receiver, answer, open_receiver

_TABLE = """-- A tenant's table more, under row security.
CREATE TABLE rehearsals (
    tenant_id uuid        NOT NULL,
    job_id    uuid        NOT NULL,
    due_at    timestamptz NOT NULL,
    CONSTRAINT rehearsals_pkey PRIMARY KEY (tenant_id, job_id)
);
CREATE INDEX rehearsals_due_at ON rehearsals (due_at);
ALTER TABLE rehearsals ENABLE ROW LEVEL SECURITY;
ALTER TABLE rehearsals FORCE ROW LEVEL SECURITY;
CREATE POLICY engine_batches ON rehearsals TO barnabas_engine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON rehearsals TO barnabas_engine;
"""
_SCHEMA = Path(migrate.__file__).with_name("schema.sql")
_QUEUE = "upgrade"
_BATCH = 500
_WATCH_SECONDS = 0.02
_SETUP_SECONDS = 120.0
_REFUSED_EACH = 10

# For how long somebody has waited now for a lock that the owner's session holds, or stands in line for before him.
_WAITS = """
SELECT COALESCE(max(EXTRACT(epoch FROM clock_timestamp() - waiting.waitstart)), 0)::float8
  FROM pg_locks AS waiting
  JOIN pg_stat_activity AS who USING (pid)
 WHERE NOT waiting.granted
   AND who.usename IS DISTINCT FROM $1
   AND EXISTS (SELECT 1
                 FROM unnest(pg_blocking_pids(waiting.pid)) AS ahead (pid)
                 JOIN pg_stat_activity AS owner USING (pid)
                WHERE owner.usename = $1)
"""
_OWNER_WAITS = """
SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity AS who USING (pid) WHERE NOT granted AND who.usename = $1)
"""
_LOCK_AS_A_BACKUP = """
SELECT format('LOCK TABLE %s IN ACCESS SHARE MODE', string_agg(format('%I', relname), ', '))
  FROM pg_class
 WHERE relnamespace = 'public'::regnamespace
   AND relkind IN ('r', 'p')
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much there is, and how long each state lasts."""

    waiting: int
    """Jobs that the old release accepts and that nobody runs before the end."""
    pace: float
    """Posts a second."""
    calm_seconds: float
    together_seconds: float
    backup_seconds: float
    again: bool
    """Whether the release comes back after it was taken back."""


QUICK = Plan(waiting=2_000, pace=60.0, calm_seconds=2.0, together_seconds=1.0, backup_seconds=4.0, again=False)
FULL = Plan(waiting=100_000, pace=150.0, calm_seconds=20.0, together_seconds=15.0, backup_seconds=30.0, again=True)


@dataclass(slots=True)
class Migration:
    """What it was like to be there while a release's migrations were applied."""

    applied: Sequence[str] = ()
    begin: float = 0.0
    end: float = 0.0
    waited: float = 0.0
    """The longest wait of anybody for a lock because of them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All answers, and both migrations' course."""

    answers: Sequence[Answer]
    forward: Migration
    back: Migration

    @property
    def accepted(self) -> list[str]:
        return [answer.job for answer in self.answers if answer.job is not None]

    @property
    def slowest(self) -> float:
        """The longest answer that was given while migrations were applied."""
        return max(
            answer.at - answer.sent_at
            for answer in self.answers
            if answer.sent_at <= self.forward.end and answer.at >= self.forward.begin
        )

    @property
    def silence(self) -> float:
        """The longest time without a job accepted."""
        at = sorted(answer.at for answer in self.answers if answer.job is not None)
        return max(later - earlier for earlier, later in itertools.pairwise(at))

    def count(self, *statuses: int) -> int:
        return sum(answer.status in statuses for answer in self.answers)


def rehearsed() -> dict[str, str]:
    """The migrations that every next release adds here, by name, as the rules ask: a table each, but for a pair."""
    tables = re.findall(r"^CREATE TABLE public\.(\w+) \(", _SCHEMA.read_text(), re.MULTILINE)
    # A partition has its parent's columns; the list of migrations is the runner's own.
    changed = [name for name in tables if not re.search(r"_(\d+|kept)$", name) and name != "schema_migrations"]
    # The one that everybody needs comes first: there the backup is met.
    changed.sort(key=lambda name: name != "jobs")
    columns = {f"rehearse_{name}": f"ALTER TABLE {name} ADD COLUMN rehearsed text;\n" for name in changed}
    columns["rehearse_job_payloads"] += "ALTER TABLE job_payloads_kept ADD COLUMN rehearsed text;\n"
    return columns | {"rehearse_a_table": _TABLE}


async def measure(plan: Plan) -> list[Figure]:
    """Old; expanded; replaced one after the other; taken back with both beside each other; and forward again."""
    async with a_directory() as directory, open_receiver() as receiver:
        old = await asyncio.to_thread(last_release, directory / "old")
        new = await asyncio.to_thread(next_release, directory / "new", adds=rehearsed())
        async with open_rollout(directory, old, together_seconds=plan.together_seconds) as rollout:
            # No divisor in common with the kinds of jobs: each of them has some of every kind.
            tenants = await make_tenants(rollout.stack, 13, "upgrade")
            for tenant in tenants:
                await _subscribe(rollout, receiver, tenant)
            (patient,) = await make_tenants(rollout.stack, 1, "patient")
            waiting = await _submit(rollout, patient, plan.waiting)
            seen = await _under_load(rollout, tenants, old, new, plan)
            await rollout.start("worker", new if plan.again else old, {"BARNABAS_QUEUES": _QUEUE})
            async with rollout.stack.database() as database:
                books = await settled(database, tenants)
                delivered, _ = await deliveries(database, tenants, books)
                late = await settled(database, [patient])
            accepted = [*seen.accepted, *waiting]
            told = await told_events(rollout.kafka, accepted)
            for program in list(rollout.programs):
                await rollout.stop(program)
            for line in rollout.errors:
                print(line[:600])
    distinct = {request.webhook_id for request in receiver.requests}
    ended = Books([*books.rows, *late.rows])
    return [
        *_of_the_door(seen),
        *ended.figures("upgrade", accepted),
        once("upgrade.charged", "attempts charged that no handler asked for", "attempts", _charged(seen, books)),
        once("upgrade.losses", "runs taken for lost", "runs", sum(row.losses for row in ended.rows)),
        once("upgrade.told_twice", "jobs told of by two events", "jobs", sum(len(ids) > 1 for ids in told.values())),
        once("upgrade.undelivered", "ended jobs without their webhook", "jobs", len(books.rows) - delivered),
        once("upgrade.webhooks", "webhooks beyond one for each job", "webhooks", len(distinct) - len(books.rows)),
        *_of_the_programs(rollout),
        *_of_the_migrations(seen),
    ]


async def _under_load(rollout: Rollout, tenants: Sequence[Tenant], old: Release, new: Release, plan: Plan) -> Seen:
    """The way there and back, with half of the posts on connections that stay open and half on ones of their own."""
    half = plan.pace / 2
    async with (
        open_door(rollout.stack, tenants, pace=half, job=_job) as kept,
        open_door(rollout.stack, tenants, pace=half, job=_job, keeps_connections=False) as fresh,
    ):
        for door in (kept, fresh):
            await door.until_accepting()
        await asyncio.sleep(plan.calm_seconds)
        async with _a_backup(rollout, plan.backup_seconds):
            forward = await _set_up(rollout, new)
        await rollout.one_by_one(KINDS, new)
        # What a release that is taken back does first: its own migrations are all there, and it knows of no others.
        back = await _set_up(rollout, old)
        await rollout.side_by_side(KINDS, old)
        if plan.again:
            await _set_up(rollout, new)
            await rollout.one_by_one(KINDS[::-1], new)
        for door in (kept, fresh):
            await door.until_accepting()
    return Seen(_answers(kept, fresh), forward, back)


async def _set_up(rollout: Rollout, release: Release) -> Migration:
    async with _watched(rollout.superuser_dsn) as migration:
        migration.begin = time.monotonic()
        migration.applied = await rollout.setup(release)
        migration.end = time.monotonic()
    return migration


@asynccontextmanager
async def _watched(dsn: str) -> AsyncIterator[Migration]:
    """Looks all the while who waits for a lock of the owner's."""
    migration = Migration()
    async with _connected(dsn) as connection:

        async def watch() -> None:
            while True:
                migration.waited = max(migration.waited, await connection.fetchval(_WAITS, OWNER))
                await asyncio.sleep(_WATCH_SECONDS)

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            yield migration
            watching.cancel()


@asynccontextmanager
async def _a_backup(rollout: Rollout, seconds: float) -> AsyncIterator[None]:
    """The transaction of a `pg_dump` that takes so long from the moment in which a migration has to wait for it."""
    async with _connected(rollout.database_dsn) as connection, _connected(rollout.superuser_dsn) as other:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await connection.execute(await connection.fetchval(_LOCK_AS_A_BACKUP))

        async def end() -> None:
            await eventually(lambda: other.fetchval(_OWNER_WAITS, OWNER), timeout=_SETUP_SECONDS)
            await asyncio.sleep(seconds)
            await connection.execute("COMMIT")

        async with asyncio.TaskGroup() as group:
            group.create_task(end())
            yield


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


def _job(number: int) -> dict[str, object]:
    """A bit of everything that one release may leave to the other: a retry, a delay, a line, a run of a second."""
    match number % 10:
        case 0:
            return {"type": "sleep", "payload": {"seconds": 1}}
        case 3:
            return {"type": "later", "payload": number}
        case 5:
            return {"type": "echo", "payload": number, "ordering_key": f"line-{number % 4}"}
        case 7:
            return {"type": "echo", "payload": number, "delay_seconds": 2}
        case _:
            return {"type": "echo", "payload": number}


def _attempts(number: int) -> int:
    """How many attempts its handler takes."""
    return 2 if _job(number)["type"] == "later" else 1


def _charged(seen: Seen, books: Books) -> int:
    """Beyond those; of a job whose answer got lost nobody knows which it is."""
    number_of = {answer.job: int(answer.key.rpartition("-")[2]) for answer in seen.answers if answer.job is not None}
    return sum(row.attempt - _attempts(number_of[row.job]) for row in books.rows if row.job in number_of)


def _answers(*doors: Door) -> list[Answer]:
    return [answer for door in doors for answer in door.answers]


async def _subscribe(rollout: Rollout, receiver: Receiver, tenant: Tenant) -> None:
    async with rollout.stack.client(tenant.key) as client:
        url = receiver.script(f"/{tenant.id}", _refuse_some())
        await client.create_endpoint(url, retry_schedule_seconds=[1, 2, 5, 10])


def _refuse_some() -> Behaviour:
    """Every tenth webhook has to be sent again, once."""
    known: set[str] = set()

    async def behave(exchange: Exchange) -> None:
        webhook_id = exchange.received.webhook_id
        refused = webhook_id not in known and len(known) % _REFUSED_EACH == 0
        known.add(webhook_id)
        await answer(503 if refused else 204)(exchange)

    return behave


async def _submit(rollout: Rollout, tenant: Tenant, count: int) -> list[str]:
    """Jobs of a queue that no worker serves for now: rows that are there when the tables change."""
    ids: list[str] = []
    async with rollout.stack.client(tenant.key) as client:
        for start in range(0, count, _BATCH):
            jobs = [{"type": "echo", "payload": n, "queue": _QUEUE} for n in range(start, min(count, start + _BATCH))]
            ids += [str(verdict.id) for verdict in await client.submit_batch(jobs)]
    return ids


def _of_the_door(seen: Seen) -> list[Figure]:
    known = seen.count(NO_ANSWER, 202, 503)
    return [
        once("upgrade.accepted", "jobs accepted meanwhile", "jobs", len(seen.accepted)),
        once("upgrade.refused", "of the answers, 503", "answers", seen.count(503)),
        once("upgrade.unanswered", "posts that an ending ingest left unanswered", "posts", seen.count(NO_ANSWER)),
        once("upgrade.other", "answers that were neither 202 nor 503", "answers", len(seen.answers) - known),
        once("upgrade.silence", "longest time without a job accepted", "s", seen.silence),
    ]


def _of_the_programs(rollout: Rollout) -> list[Figure]:
    unwell = [ending for ending in rollout.endings if ending.by_itself or ending.code]
    for ending in unwell:
        print(f"{ending.name} ended {'by itself ' if ending.by_itself else ''}with exit code {ending.code}")
    return [
        once("upgrade.replaced", "programs that were told to stop", "programs", len(rollout.endings)),
        once("upgrade.unwell", "of those, ended by themselves or not well", "programs", len(unwell)),
        once("upgrade.together", "two releases of a kind at work beside each other", "s", rollout.together),
        once("upgrade.errors", "errors in their logs", "lines", len(rollout.errors)),
    ]


def _of_the_migrations(seen: Seen) -> list[Figure]:
    forward = seen.forward
    return [
        once("upgrade.applied", "migrations that the new release applied", "migrations", len(forward.applied)),
        once("upgrade.seconds", "until they were, beside a backup", "s", forward.end - forward.begin),
        once("upgrade.lock", "longest wait for a lock because of them", "s", forward.waited),
        once("upgrade.accept", "slowest answer while they were applied", "s", seen.slowest),
        once("upgrade.undone", "migrations that the release taken back applied", "migrations", len(seen.back.applied)),
    ]
