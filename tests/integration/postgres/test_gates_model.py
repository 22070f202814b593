"""Gates in Postgres and gates in memory, moved side by side: verdicts, places, logs and lines are the same."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.gates import TENANT_LINE, Gate, Line, LineKind, StartLog, type_line
from barnabas.domain.jobs import Hook, JobState
from barnabas.postgres.database import Session, open_database
from barnabas.postgres.turns import (
    Claim,
    Finishing,
    Releasing,
    Turn,
    Turned,
    fetch_backlog,
    give_back_woken,
    park_backlog,
    take_turn,
)
from barnabas_local.database import Logins
from tests.support.gate_model import GateModel, ModelJob
from tests.support.world import new_id

T = TypeVar("T")

# Windows and steps of time are long, so that the time that a test itself takes decides nothing.
HOUR = 3600 * 1_000_000
STEP = 25 * 60 * 1_000_000
TYPES = (1, 2)
LINES = (TENANT_LINE, *(type_line(type_id) for type_id in TYPES))

gates = st.builds(
    lambda allowed, starts: Gate(
        allowed=allowed, log=None if starts is None else StartLog(starts_allowed=starts, window_us=HOUR)
    ),
    st.sampled_from([2, 1, 3, None]),
    st.sampled_from([None, None, None, 5, 130, 3]),
)
batches = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(TYPES)), min_size=1, max_size=6)


@dataclass(slots=True)
class Real:
    """One tenant's rows, written past the API and moved by the worker's own functions."""

    session: Session
    number: int
    """Of the tenant; its queue has the same one, so that backlogs of other tenants are out of the way."""
    tenant_id: UUID = field(default_factory=new_id)
    worker_id: UUID = field(default_factory=new_id)
    fences: dict[UUID, int] = field(default_factory=dict)

    async def start(self, limits: dict[Line, Gate]) -> None:
        await self.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, $2)", self.tenant_id, str(self.tenant_id))
        await self.execute(
            "INSERT INTO workers (worker_id, service, host, pid, slots, type_ids, lease_until)"
            " VALUES ($1, 'worker', 'here', 1, 100, '{1,2}', now() + interval '1 day')",
            self.worker_id,
        )
        for line, gate in limits.items():
            await self.set_gate(line, gate)

    async def set_gate(self, line: Line, gate: Gate) -> None:
        await self.execute(
            "INSERT INTO gates (tenant_id, kind, type_id, allowed, starts_allowed, window_seconds)"
            " VALUES ($1, $2, $3, $4, $5, 3600)"
            " ON CONFLICT ON CONSTRAINT gates_pkey DO UPDATE SET allowed = $4, starts_allowed = $5",
            self.tenant_id,
            line[0],
            line[1],
            gate.allowed,
            None if gate.log is None else gate.log.starts_allowed,
        )

    async def insert(self, jobs: list[ModelJob]) -> None:
        await self.execute(
            "INSERT INTO jobs (tenant_id, job_id, ready_at, type_id, state, priority, queue_id)"
            " SELECT $1, t.id, now(), t.type_id, 2, t.priority, $2"
            " FROM unnest($3::uuid[], $4::integer[], $5::smallint[]) AS t (id, type_id, priority)",
            self.tenant_id,
            self.number,
            [self.id(job) for job in jobs],
            [job.type_id for job in jobs],
            [3 - job.precedence for job in jobs],
        )

    def id(self, job: ModelJob) -> UUID:
        """Ids in the order of numbers: that is the order in which a batch asks."""
        return UUID(int=self.number << 64 | job.number)

    async def turn(
        self,
        asking: list[ModelJob] | None = None,
        *,
        ended: list[ModelJob] | None = None,
        released: list[ModelJob] | None = None,
        wake: bool = False,
        spare: int = 0,
        types: tuple[int, ...] = TYPES,
    ) -> Turned:
        finishing = [
            Finishing(self.tenant_id, self.id(job), self.fences[self.id(job)], JobState.SUCCEEDED, new_id())
            for job in ended or ()
        ]
        releasing = [
            Releasing(self.tenant_id, self.id(job), self.fences[self.id(job)], AttemptKind.HAND_BACK)
            for job in released or ()
        ]
        claim = Claim(
            batch_id=new_id(),
            keys=[(self.tenant_id, self.id(job)) for job in asking or ()],
            types=dict.fromkeys(types, 60_000),
        )
        turn = Turn(
            worker_id=self.worker_id,
            finishing=finishing,
            releasing=releasing,
            wake=[self.tenant_id] if wake else [],
            spare=spare,
            keep=True,
            claim=claim if asking is not None or spare or wake or ended or released else None,
        )
        turned = await take_turn(self.session, turn)
        if turned.claims is not None:
            self.fences.update((job.job_id, job.fence) for job in turned.claims.claimed)
        return turned

    async def pass_time(self, microseconds: int) -> None:
        """Everything that was noted is older now."""
        span = timedelta(microseconds=microseconds)
        await self.execute(
            "UPDATE gates SET log_at = ARRAY("
            "SELECT entry - $2::interval FROM unnest(log_at) WITH ORDINALITY AS t (entry, ord) ORDER BY ord"
            ") WHERE tenant_id = $1",
            self.tenant_id,
            span,
        )
        await self.execute(
            "UPDATE waiting SET woken_at = woken_at - $2::interval WHERE tenant_id = $1", self.tenant_id, span
        )

    async def execute(self, statement: str, *args: object) -> None:
        await self.session.connection.execute(statement, *args)

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.session.connection.fetch(statement, self.tenant_id)]


class SideBySide(RuleBasedStateMachine):
    """The same steps in Postgres and in memory. Runs on a thread; Postgres is spoken to on the test's loop."""

    tenants = 0

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        type(self).tenants += 1
        self.loop = loop
        self.real = Real(session, type(self).tenants)
        self.model = GateModel()
        self.queued: dict[int, ModelJob] = {}
        self.made = 0
        self.shifted = 0

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self.loop).result(120)

    @property
    def at(self) -> int:
        return time.time_ns() // 1000 + self.shifted

    @initialize(limits=st.tuples(gates, gates, st.none() | gates), jobs=batches)
    def limit(self, limits: tuple[Gate | None, ...], jobs: list[tuple[int, int]]) -> None:
        self.model.gates = {line: gate for line, gate in zip(LINES, limits, strict=True) if gate is not None}
        self.do(self.real.start(self.model.gates))
        # More than may start, so that there is a line from the start on.
        self.submit(jobs)
        self.ask_all()
        self.submit_and_ask_one_by_one(jobs)

    @rule(jobs=batches)
    def submit(self, jobs: list[tuple[int, int]]) -> None:
        made = [ModelJob(self.made + number, *one) for number, one in enumerate(jobs, 1)]
        self.made += len(made)
        self.queued.update((job.number, job) for job in made)
        self.do(self.real.insert(made))

    @rule(jobs=batches)
    def submit_and_ask_one_by_one(self, jobs: list[tuple[int, int]]) -> None:
        """Each with its type's place free while the tenant's are taken: all wait at the tenant's gate."""
        numbers = range(self.made + 1, self.made + len(jobs) + 1)
        self.submit(jobs)
        for number in numbers:
            self.claim([self.queued[number]])

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        self.claim(self.draw_queued(data))

    @precondition(lambda self: self.queued)
    @rule()
    def ask_all(self) -> None:
        self.claim([job for _, job in sorted(self.queued.items())])

    @precondition(lambda self: self.queued)
    @rule(data=st.data(), known=st.sampled_from(TYPES))
    def ask_where_a_type_is_unknown(self, data: st.DataObject, known: int) -> None:
        jobs, at = self.draw_queued(data), self.at
        turned = self.do(self.real.turn(jobs, types=(known,)))
        self.expect_claims(turned, [job for job in jobs if job.type_id == known], at)
        # They are seated after those who wait at a gate.
        unhandled = [job for job in jobs if job.type_id != known]
        for job in unhandled:
            self.model.park(job, (LineKind.UNHANDLED, job.type_id))
        self.compare()

    @precondition(lambda self: self.model.running)
    @rule(data=st.data(), again=st.booleans(), spare=st.sampled_from([0, 100]))
    def end(self, data: st.DataObject, again: bool, spare: int) -> None:
        running = sorted(self.model.running, key=lambda job: job.number)
        jobs = data.draw(st.lists(st.sampled_from(running), min_size=1, max_size=4, unique=True))
        self.let_go(jobs, again=again, spare=spare)

    def let_go(self, jobs: list[ModelJob], *, again: bool, spare: int) -> None:
        at = self.at
        turned = self.do(self.real.turn(ended=[] if again else jobs, released=jobs if again else [], spare=spare))

        assert {self.real.id(job) for job in jobs} == (turned.released if again else turned.closed)
        self.model.end(jobs)
        if again:
            self.queued.update((job.number, job) for job in jobs)
        self.expect_woken(turned, spare, at)

    @rule(spare=st.sampled_from([0, 100]))
    def sweep(self, spare: int) -> None:
        at = self.at
        turned = self.do(self.real.turn(wake=True, spare=spare))
        self.expect_woken(turned, spare, at)

    @rule(steps=st.integers(1, 4))
    def pass_time(self, steps: int) -> None:
        self.shifted += steps * STEP
        self.do(self.real.pass_time(steps * STEP))

    @precondition(lambda self: self.model.gates)
    @rule(data=st.data(), gate=gates)
    def change_a_limit(self, data: st.DataObject, gate: Gate) -> None:
        line = data.draw(st.sampled_from(sorted(self.model.gates)))
        before = self.model.gates[line]
        if (before.allowed is None) != (gate.allowed is None) or (before.log is None) != (gate.log is None):
            # A limit that comes or goes makes its gate count anew, which is another function's business.
            return
        log = None if gate.log is None or before.log is None else replace(gate.log, entries=before.log.entries)
        self.model.gates[line] = replace(before, allowed=gate.allowed, log=log)
        self.do(self.real.set_gate(line, gate))

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def park_in_the_backlog(self, data: st.DataObject) -> None:
        jobs = self.draw_queued(data)

        keys = [(self.real.tenant_id, self.real.id(job), self.real.number) for job in jobs]
        self.do(park_backlog(self.real.session, keys))
        for job in jobs:
            if job not in self.model.seats:
                self.model.park(job, (LineKind.BACKLOG, self.real.number))
        self.compare()

    @rule(each=st.integers(1, 4))
    def fetch_the_backlog(self, each: int) -> None:
        at = self.at
        fetched = self.do(fetch_backlog(self.real.session, [self.real.number], tenants=5, each=each))
        sleeping = [
            (job, self.model.seats[job])
            for job in self.model.line((LineKind.BACKLOG, self.real.number))
            if self.model.seats[job].is_asleep(at)
        ]
        for job, seat in sleeping[:each]:
            self.model.seats[job] = replace(seat, woken_at=at)
        assert sorted(job.job_id for job in fetched) == sorted(self.real.id(job) for job, _ in sleeping[:each])
        self.compare()

    @precondition(lambda self: self.model.seats)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        seated = sorted(self.model.seats, key=lambda job: job.number)
        jobs = data.draw(st.lists(st.sampled_from(seated), min_size=1, max_size=3, unique=True))

        keys = [Key(self.real.tenant_id, self.real.id(job)) for job in jobs]
        self.do(give_back_woken(self.real.session, keys))
        for job in jobs:
            self.model.seats[job] = replace(self.model.seats[job], woken_at=None)
        self.compare()

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.queued)))
        job = self.queued.pop(number)
        row = self.do(self.real.session.fetchrow("cancel_job", self.real.tenant_id, self.real.id(job)))
        assert row is not None
        assert row["answer"] == "cancelled"
        self.model.seats.pop(job, None)
        self.compare()

    def claim(self, jobs: list[ModelJob]) -> None:
        at = self.at
        turned = self.do(self.real.turn(jobs))
        self.expect_claims(turned, jobs, at)
        self.compare()

    def draw_queued(self, data: st.DataObject) -> list[ModelJob]:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.queued)), min_size=1, max_size=8, unique=True))
        return [self.queued[number] for number in sorted(numbers)]

    def expect_woken(self, turned: Turned, spare: int, at: int) -> None:
        woken = self.model.wake(at)
        if spare:
            assert not turned.kept
            self.expect_claims(turned, woken, at)
        else:
            assert sorted(job.job_id for job in turned.kept) == sorted(self.real.id(job) for job in woken)
        self.compare()

    def expect_claims(self, turned: Turned, jobs: list[ModelJob], at: int) -> None:
        verdict = self.model.ask(jobs, at)
        for job in verdict.started:
            del self.queued[job.number]
        assert turned.claims is not None
        assert sorted(job.job_id for job in turned.claims.claimed) == sorted(map(self.real.id, verdict.started))

    def compare(self) -> None:
        async def read() -> tuple[list[tuple[Any, ...]], ...]:
            return (
                await self.real.rows(
                    "SELECT kind, type_id, used, (SELECT COALESCE(sum(n), 0)::integer"
                    " FROM unnest(log_at, log_counts) AS t (at, n)"
                    " WHERE at + make_interval(secs => window_seconds) > clock_timestamp())"
                    " FROM gates WHERE tenant_id = $1"
                ),
                await self.real.rows(
                    "SELECT job_id, kind, line, precedence, woken_at IS NOT NULL FROM waiting WHERE tenant_id = $1"
                    " ORDER BY seq"
                ),
                await self.real.rows("SELECT job_id, state, hooks FROM jobs WHERE tenant_id = $1 ORDER BY job_id"),
            )

        at = self.at
        places, seats, jobs = self.do(read())
        assert {(kind, type_id): (used, starts) for kind, type_id, used, starts in places} == {
            line: (gate.used, 0 if gate.log is None else gate.log.counting(at))
            for line, gate in self.model.gates.items()
        }
        assert seats == [
            (self.real.id(job), *seat.line, job.precedence, seat.woken_at is not None)
            for job, seat in sorted(self.model.seats.items(), key=lambda one: one[1].seq)
        ]
        expected = [(self.real.id(job), 2, Hook.PARKED * (job in self.model.seats)) for job in self.queued.values()]
        for job, held in self.model.running.items():
            bits = sum(Hook.LIMITED if line == TENANT_LINE else Hook.LIMITED_TYPE for line in held)
            expected.append((self.real.id(job), 3, bits))
        assert jobs == sorted(expected)


@dataclass(frozen=True, slots=True)
class Key:
    """Names a job."""

    tenant_id: UUID
    job_id: UUID


@pytest.fixture
async def session(database: Logins) -> AsyncIterator[Session]:
    async with open_database(database.engine_dsn, login="engine", size_max=1) as engine, engine.session() as opened:
        yield opened


@pytest.mark.timeout(900)
async def test_postgres_moves_jobs_through_gates_as_the_model_does(session: Session) -> None:
    loop = asyncio.get_running_loop()
    bounds = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))

    class Machine(SideBySide):
        def __init__(self) -> None:
            super().__init__(session, loop)

    await asyncio.to_thread(run_state_machine_as_test, Machine, settings=bounds)
