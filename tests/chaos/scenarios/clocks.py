"""Clocks that are wrong: one process after the other is set ten minutes ahead and back, while another's clock drifts.

Postgres's clock is right throughout, and so is that of the load and of the receiver, which share it: a start is judged
by when its job was sent, a signature as a tenant would. Kafka's own clock is stepped like the services'. Nobody dies,
so nothing may be taken for lost.
"""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from standardwebhooks import WebhookVerificationError

from barnabas.contract.events import decode_event, event_time
from barnabas.contract.topics import DELAY_TIERS, RESULTS
from barnabas.domain.attempts import AttemptKind
from barnabas.kafka.admin import Admin
from barnabas.kafka.lag import bounds, partitions_of
from tests.bench.figures import Figure, once
from tests.chaos.clocks.clocks import Clocks
from tests.chaos.scenarios.books import SETTLE_SECONDS, deliveries, settled
from tests.chaos.scenarios.door import Answer, Door, Tenant, make_tenants, open_door
from tests.chaos.scenarios.instruments import APP, SERVICES, a_directory, metric, ops_url, until_well
from tests.support.eventually import eventually
from tests.support.receiver import Exchange, Receiver, answer, open_receiver
from tests.support.stack import Stack, open_stack
from tests.support.topics import TopicReader

STEPPED = (*SERVICES, "kafka")
STEP_SECONDS = 600.0
_DRIFTING = "worker-2"
_RATES = (1.5, 0.7)
_PROCESSES = (*SERVICES, _DRIFTING)
_LEASE_EVENTS = ('"event":"lease_expired"', '"event":"lease_lost"')

_DELAYS = (2.0, 7.0, 12.0)
_RETRY_SECONDS = 3.0
# Ingest and workers know the database's clock to some milliseconds, and a busy machine makes them guess worse.
_EARLY_SECONDS = 0.05
_STAMPED_WRONG_SECONDS = STEP_SECONDS / 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each wrong clock is held, under how many posts a second, and for how long without any.

    Without any it is longer than a lease and a session of Kafka, or one that isn't renewed would not show.
    """

    hold_seconds: float
    idle_seconds: float
    pace: float


QUICK = Plan(hold_seconds=3.0, idle_seconds=15.0, pace=40.0)
FULL = Plan(hold_seconds=30.0, idle_seconds=90.0, pace=150.0)


@dataclass(slots=True)
class Seen:
    """What is only seen while it happens."""

    webhooks: int = 0
    refused: int = 0
    ids: list[str] = field(default_factory=list)
    """The jobs of the idle system."""


async def measure(plan: Plan) -> list[Figure]:
    """Step each in turn, under load and then without any; count what was early, taken for lost, or refused."""
    seen = Seen()
    async with _a_test_build() as (stack, clocks), open_receiver() as receiver, stack.database() as database:
        await until_well(stack)
        pids = {name: stack.pid(name) for name in (*_PROCESSES, "kafka")}
        tenants = await make_tenants(stack, 6, "clocks")
        for tenant in tenants:
            await _subscribe(stack, receiver, tenant, seen)
        offset = await _database_offset(database)
        turn = clocks.drifting(pids[_DRIFTING], *_RATES, turn_seconds=5 * plan.hold_seconds)
        async with open_door(stack, tenants, pace=plan.pace, job=_job) as door, turn:
            for name in STEPPED:
                await _step(clocks, pids[name], door, plan.hold_seconds)
        await settled(database, tenants)
        idle = await _set_back_in_silence(stack, clocks, tenants, seen, plan.idle_seconds)
        await until_well(stack)
        books = await settled(database, tenants)
        delivered, again = await deliveries(database, tenants, books)
        starts = await _starts(database, tenants)
        stamped = await _stamped(stack.told["kafka"], {row.job for row in books.rows})
        counted = await _counted(stack)
        hops = await _hops(stack.told["kafka"])
        # A metric counts what was held; none was to end at all.
        expired = sum(stack.log(name).count(event) for name in _PROCESSES for event in _LEASE_EVENTS)
        ended = sum(stack.pid(name) != pid for name, pid in pids.items())
    accepted = [*door.accepted, *seen.ids]
    jobs = [_job(_number(each)) for each in door.answers if each.job is not None]
    delayed = [job for job in jobs if "delay_seconds" in job or "retry" in job]
    # What was asked to fail is charged once.
    wanted = sum("retry" in job for job in jobs)
    punctual = _Punctual.judge(door.answers, starts, offset)
    return [
        once("clocks.accepted", "jobs accepted meanwhile", "jobs", len(accepted)),
        once("clocks.other", "answers other than 202", "answers", door.other_than(202)),
        once("clocks.stamped", "results that Kafka has under a wrong time", "records", stamped),
        once("clocks.early", "runs that began before they were due", "runs", punctual.early),
        once("clocks.late", "runs that began after they were due, by at most", "s", punctual.late),
        once("clocks.hops", "records in the delay topics for each delayed run", "records", hops / len(delayed)),
        once("clocks.disordered", "runs of a line beside or before an earlier job", "runs", punctual.disordered),
        once("clocks.losses", "runs taken for lost", "runs", sum(row.losses for row in books.rows)),
        once("clocks.expired", "leases that ended, with something held or without", "leases", expired),
        once("clocks.charged", "attempts charged beyond those wanted", "attempts", books.charged - wanted),
        once("clocks.ended", "processes that ended", "processes", ended),
        *books.figures("clocks", accepted),
        once("clocks.webhooks", "webhooks received", "webhooks", seen.webhooks),
        once("clocks.refused", "of those, with a signature that is refused", "webhooks", seen.refused),
        once("clocks.undelivered", "ended jobs without their webhook", "jobs", len(books.rows) - delivered),
        once("clocks.delivered_again", "deliveries that took more than one attempt", "deliveries", again),
        once("clocks.sent_again", "records sent again", "records", counted["barnabas_reconciler_republished_total"]),
        once("clocks.thrown_out", "members thrown out by Kafka", "members", counted["barnabas_rebalances_total"]),
        once("clocks.idle", "all services idle and set back: from some posts to their last webhook", "s", idle),
    ]


@asynccontextmanager
async def _a_test_build() -> AsyncIterator[tuple[Stack, Clocks]]:
    """A stack whose services and Kafka have clocks that can be shifted. Postgres is started without our environment."""
    async with a_directory() as directory:
        clocks = await asyncio.to_thread(Clocks, directory)
        async with open_stack(workers=2, app=APP, env=clocks.env) as stack:
            yield stack, clocks


async def _step(clocks: Clocks, pid: int, door: Door, hold_seconds: float) -> None:
    """Ahead, true, behind, true: four steps, each held under load."""
    try:
        for seconds in (STEP_SECONDS, 0.0, -STEP_SECONDS, 0.0):
            clocks.shift(pid, seconds)
            await asyncio.sleep(hold_seconds)
            await door.until_accepting()
    finally:
        clocks.shift(pid, 0.0)


async def _set_back_in_silence(
    stack: Stack, clocks: Clocks, tenants: Sequence[Tenant], seen: Seen, idle_seconds: float
) -> float:
    """All services at once while nothing happens: waits until a moment of the wall clock last ten minutes longer. Then
    some posts; how long they took, until their last webhook.
    """
    pids = [stack.pid(name) for name in _PROCESSES]
    try:
        for pid in pids:
            clocks.shift(pid, -STEP_SECONDS)
        await asyncio.sleep(idle_seconds)
        before, begin = seen.webhooks, time.monotonic()
        # One for each tenant: between them they meet both workers.
        for tenant in tenants:
            async with stack.client(tenant.key) as client:
                seen.ids.append(str((await client.submit("echo", 1)).id))
        wanted = before + len(tenants)
        await eventually(lambda: seen.webhooks, until=lambda count: count >= wanted, timeout=SETTLE_SECONDS)
        return time.monotonic() - begin
    finally:
        for pid in pids:
            clocks.shift(pid, 0.0)


def _job(number: int) -> dict[str, object]:
    """Mostly short; some later, some that fail once, some in lines."""
    match number % 10:
        case 0 | 1:
            return {"type": "echo", "payload": number, "delay_seconds": _DELAYS[number // 10 % len(_DELAYS)]}
        case 2 | 3:
            retry = {"base_seconds": _RETRY_SECONDS, "cap_seconds": _RETRY_SECONDS, "jitter": "none"}
            return {"type": "fail", "payload": {"times": 1}, "retry": retry}
        case 4 | 5:
            return {"type": "sleep", "payload": {"seconds": 0.05}, "ordering_key": "line"}
        case _:
            return {"type": "echo", "payload": number}


def _number(asked: Answer) -> int:
    return int(asked.key.rpartition("-")[2])


def _path(tenant: Tenant) -> str:
    return f"/{tenant.id}"


async def _subscribe(stack: Stack, receiver: Receiver, tenant: Tenant, seen: Seen) -> None:
    """An endpoint that takes only what was signed not long ago, as Standard Webhooks wants it."""
    async with stack.client(tenant.key) as client:
        endpoint = await client.create_endpoint(receiver.url(_path(tenant)), retry_schedule_seconds=[1, 2, 5, 10])
    secret = endpoint.secret
    assert secret is not None

    async def verify(exchange: Exchange) -> None:
        seen.webhooks += 1
        try:
            exchange.received.verified(secret)
        except WebhookVerificationError:
            seen.refused += 1
            await answer(401)(exchange)
        else:
            await answer(204)(exchange)

    receiver.script(_path(tenant), verify)


async def _database_offset(database: Any) -> timedelta:
    """What has to be added to our monotonic clock to have the database's, at most a round trip too little."""
    at: datetime = await database.fetchval("SELECT clock_timestamp()")
    return at - _moment(time.monotonic())


@dataclass(frozen=True, slots=True)
class _Run:
    """The last run of a job and when it could begin: by the database's clock, whose alone these columns are."""

    began: datetime
    ended: datetime
    failed_began: datetime | None
    """When the attempt before it began."""
    failed_ended: datetime | None
    next_at: datetime | None


async def _starts(database: Any, tenants: Sequence[Tenant]) -> dict[str, _Run]:
    rows = await database.fetch(
        "SELECT result.job_id, result.started_at, result.finished_at, attempt.started_at AS failed_began,"
        " attempt.finished_at AS failed_ended, attempt.next_at FROM job_results AS result LEFT JOIN job_attempts AS"
        " attempt ON (attempt.tenant_id, attempt.job_id, attempt.attempt, attempt.kind)"
        " = (result.tenant_id, result.job_id, result.attempt - 1, $2) WHERE result.tenant_id = ANY ($1)",
        [UUID(tenant.id) for tenant in tenants],
        int(AttemptKind.ATTEMPT),
    )
    return {str(job): _Run(*times) for job, *times in rows}


@dataclass(slots=True)
class _Punctual:
    """Which runs began when they had to."""

    early: int = 0
    late: float = 0.0
    disordered: int = 0

    @classmethod
    def judge(cls, answers: Sequence[Answer], runs: Mapping[str, _Run], offset: timedelta) -> "_Punctual":
        """By when each was sent and answered, whatever the product has written down as its due time."""
        judged = cls()
        lines = defaultdict[int, list[tuple[_Run, Answer]]](list)
        for asked in answers:
            run = runs.get(asked.job or "")
            if run is None:
                continue
            job = _job(_number(asked))
            delay = job.get("delay_seconds")
            if isinstance(delay, float):
                due = [_moment(moment + delay) + offset for moment in (asked.sent_at, asked.at)]
                judged._note(run.began, *due)
            if run.failed_began is not None and run.failed_ended is not None and run.next_at is not None:
                wait = timedelta(seconds=_RETRY_SECONDS)
                judged._note(run.began, max(run.next_at, run.failed_began + wait), run.failed_ended + wait)
            if "ordering_key" in job:
                # A tenant has one line, and the door goes round the tenants.
                lines[_number(asked) % 6].append((run, asked))
        for line in lines.values():
            line.sort(key=lambda one: one[0].began)
            judged.disordered += sum(
                late.began < early.ended or asked_late.at < asked_early.sent_at
                for (early, asked_early), (late, asked_late) in itertools.pairwise(line)
            )
        return judged

    def _note(self, began: datetime, due_first: datetime, due_last: datetime) -> None:
        """A start, and between which moments it was due."""
        self.early += (began - due_first).total_seconds() < -_EARLY_SECONDS
        self.late = max(self.late, (began - due_last).total_seconds())


async def _stamped(kafka: str, jobs: set[str]) -> int:
    """How many of these jobs' results have a wrong time in Kafka: there the wrong clocks show."""
    read, wrong = 0, 0
    missing = set(jobs)
    async with TopicReader(kafka, RESULTS.name) as results:

        def look() -> int:
            nonlocal read, wrong
            new, read = results.records[read:], len(results.records)
            for record in new:
                event = decode_event(record.value)
                minted = event_time(event.id).timestamp()
                wrong += str(event.job_id) in jobs and abs(record.timestamp_ms / 1000 - minted) > _STAMPED_WRONG_SECONDS
                missing.discard(str(event.job_id))
            return len(missing)

        await eventually(look, until=lambda count: count == 0, timeout=120)
    return wrong


async def _hops(kafka: str) -> int:
    """How many records the delay topics ever took."""
    names = [topic.name for topic in DELAY_TIERS]
    async with Admin(kafka) as admin:
        ends = await admin.call(lambda client: bounds(client, partitions_of(client, names), latest=True))
    return sum(ends.values())


async def _counted(stack: Stack) -> dict[str, float]:
    """Counters over all processes; of the rebalances only those that took a member's partitions from it."""
    labels = {
        "barnabas_reconciler_republished_total": (),
        "barnabas_rebalances_total": ('event="lost"',),
    }
    return {
        name: sum([await metric(ops_url(stack, process), name, *wanted) for process in _PROCESSES])
        for name, wanted in labels.items()
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
