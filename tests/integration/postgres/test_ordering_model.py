"""Lines of ordering keys in Postgres and in memory, moved side by side: whose turn it is and who is before whom."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import Hook, JobState
from barnabas.domain.ordering import Order, OrderedLine
from barnabas.postgres.database import Session, open_database
from barnabas.postgres.redrives import redrive_job
from barnabas.postgres.submissions import Submission, accept_jobs
from barnabas.postgres.turns import Claim, Finishing, Releasing, Turn, Turned, take_turn
from barnabas_local.database import Logins
from tests.support.world import new_id

T = TypeVar("T")

KEYS = ("x", "y")
ECHO = 1
DAY = timedelta(days=1)
STATES = {Order.BLOCKED: 1, Order.READY: 2, Order.RUNNING: 3}
REASONS = {JobState.FAILED: "dead"}

submitted = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([False, False, True])), min_size=1, max_size=5)


@dataclass(slots=True)
class Real:
    """One tenant's rows."""

    session: Session
    tenant_id: UUID = field(default_factory=new_id)
    worker_id: UUID = field(default_factory=new_id)
    fences: dict[UUID, int] = field(default_factory=dict)

    async def start(self) -> None:
        connection = self.session.connection
        await connection.execute(
            "INSERT INTO tenants (tenant_id, name) VALUES ($1, $2)", self.tenant_id, str(self.tenant_id)
        )
        await connection.execute(
            "INSERT INTO workers (worker_id, service, host, pid, slots, type_ids, lease_until)"
            " VALUES ($1, 'worker', 'here', 1, 100, '{1}', now() + interval '1 day')",
            self.worker_id,
        )

    async def accept(self, jobs: list[tuple[UUID, str, bool]]) -> None:
        due = await self.session.fetchval("read_clock") + DAY
        submissions = [
            Submission(
                tenant_id=self.tenant_id,
                job_id=job_id,
                type_id=ECHO,
                priority=1,
                queue_id=0,
                timeout_ms=None,
                max_attempts=None,
                due_at=due if later else None,
                payload=b"1",
                metadata=None,
                retry=None,
                trace=None,
                ordering_key=key,
            )
            for job_id, key, later in jobs
        ]
        await accept_jobs(self.session, submissions, told=())

    async def turn(
        self,
        asking: list[UUID] | None = None,
        *,
        ended: dict[UUID, JobState] | None = None,
        released: list[UUID] | None = None,
        hold: bool = False,
    ) -> Turned:
        turn = Turn(
            worker_id=self.worker_id,
            finishing=[
                Finishing(self.tenant_id, job, self.fences[job], state, new_id(), reason=REASONS.get(state))
                for job, state in (ended or {}).items()
            ],
            releasing=[Releasing(self.tenant_id, job, self.fences[job], AttemptKind.ATTEMPT) for job in released or ()],
            ordered=bool(ended),
            hold=hold,
            claim=None
            if asking is None
            else Claim(batch_id=new_id(), keys=[(self.tenant_id, job) for job in asking], types={ECHO: 60_000}),
        )
        turned = await take_turn(self.session, turn)
        if turned.claims is not None:
            self.fences.update((job.job_id, job.fence) for job in turned.claims.claimed)
        return turned

    async def make_due(self) -> None:
        """A day later, for those that wait for their time."""
        await self.session.connection.execute(
            "UPDATE jobs SET due_at = due_at - interval '2 days' WHERE tenant_id = $1 AND due_at > now()",
            self.tenant_id,
        )


class SideBySide(RuleBasedStateMachine):
    """The same steps in Postgres and in memory. Runs on a thread; Postgres is spoken to on the test's loop."""

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.real = Real(session)
        self.do(self.real.start())
        self.lines = {key: OrderedLine[UUID]() for key in KEYS}
        self.key_of: dict[UUID, str] = {}
        self.later: set[UUID] = set()
        self.dead: dict[UUID, int] = {}

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self.loop).result(120)

    @initialize(hold=st.booleans())
    def choose(self, hold: bool) -> None:
        self.hold = hold
        self.lines = {key: OrderedLine(hold_dead=hold) for key in KEYS}

    @rule(
        jobs=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([False, False, True])), min_size=1, max_size=5)
    )
    def accept(self, jobs: list[tuple[str, bool]]) -> None:
        made = [(new_id(), key, later) for key, later in jobs]
        self.do(self.real.accept(made))
        for job, key, later in made:
            self.key_of[job] = key
            self.lines[key].accept(job)
            if later:
                self.later.add(job)
        self.compare()

    @precondition(lambda self: self.open())
    @rule(data=st.data(), everybody=st.booleans())
    def ask(self, data: st.DataObject, everybody: bool) -> None:
        """Records come for whomever, as after a republish."""
        jobs = self.open() if everybody else [data.draw(st.sampled_from(self.open()))]
        turned = self.do(self.real.turn(jobs))

        expected = [job for job in jobs if job not in self.later and self.line(job).start(job)]
        assert turned.claims is not None
        assert sorted(job.job_id for job in turned.claims.claimed) == sorted(expected)
        self.compare()

    @precondition(lambda self: self.running())
    @rule(failed=st.lists(st.booleans(), min_size=2, max_size=2))
    def end(self, failed: list[bool]) -> None:
        """All that run end in one turn, as a worker's do."""
        ended = {
            job: JobState.FAILED if fails else JobState.SUCCEEDED
            for job, fails in zip(self.running(), failed, strict=False)
        }
        turned = self.do(self.real.turn(ended=ended, hold=self.hold))

        ready = []
        for job, state in ended.items():
            if state is JobState.FAILED:
                passed, self.dead[job] = self.line(job).die(job)
                ready += passed
            else:
                ready += self.line(job).end(job)
        assert turned.closed == ended.keys()
        told = [one.job_id for jobs in turned.told.values() for one in jobs]
        assert sorted(told) == sorted(job for job in ready if job not in self.later)
        self.compare()

    @precondition(lambda self: self.running())
    @rule()
    def retry(self) -> None:
        jobs = self.running()
        turned = self.do(self.real.turn(released=jobs))

        assert turned.released == set(jobs)
        for job in jobs:
            self.line(job).retry(job)
        self.compare()

    @precondition(lambda self: self.later)
    @rule()
    def a_day_goes_by(self) -> None:
        self.do(self.real.make_due())
        self.later.clear()
        self.compare()

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.open()))
        row = self.do(self.real.session.fetchrow("cancel_job", self.real.tenant_id, job))

        assert row is not None
        assert row["answer"] == "cancelled"
        self.line(job).end(job)
        self.later.discard(job)
        self.compare()

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        dead = data.draw(st.sampled_from(list(self.dead)))
        job = new_id()

        async def redrive() -> str:
            async with self.real.session.transaction():
                return (await redrive_job(self.real.session, self.real.tenant_id, dead, new_id=job)).answer

        assert self.do(redrive()) == "redriven"
        self.key_of[job] = self.key_of[dead]
        self.line(dead).redrive(dead, job, self.dead.pop(dead))
        self.compare()

    def line(self, job: UUID) -> OrderedLine[UUID]:
        return self.lines[self.key_of[job]]

    def open(self) -> list[UUID]:
        """Those that may be cancelled: neither run nor ended."""
        return self.of(Order.READY, Order.BLOCKED)

    def running(self) -> list[UUID]:
        return self.of(Order.RUNNING)

    def of(self, *wanted: Order) -> list[UUID]:
        return [job for line in self.lines.values() for job, order in line.orders().items() if order in wanted]

    def compare(self) -> None:
        async def read() -> tuple[list[Any], list[Any], list[Any]]:
            connection = self.real.session.connection
            return (
                await connection.fetch(
                    "SELECT ordering_key, array_agg(job_id ORDER BY seq) FROM ordering WHERE tenant_id = $1 GROUP BY 1",
                    self.real.tenant_id,
                ),
                await connection.fetch(
                    "SELECT ordering_key, job_id FROM ordering_keys WHERE tenant_id = $1", self.real.tenant_id
                ),
                await connection.fetch(
                    "SELECT job_id, state, hooks, EXISTS (SELECT FROM timers WHERE ref_id = job_id) FROM jobs"
                    " WHERE tenant_id = $1",
                    self.real.tenant_id,
                ),
            )

        places, turns, jobs = self.do(read())
        orders = {key: line.orders() for key, line in self.lines.items()}
        assert dict(map(tuple, places)) == {key: list(line) for key, line in orders.items() if line}
        assert dict(map(tuple, turns)) == {
            key: job for key, line in orders.items() for job, order in line.items() if order is not Order.BLOCKED
        }
        expected = {}
        for line in orders.values():
            for job, order in line.items():
                if order is Order.HELD:
                    continue
                expected[job] = (STATES[order], Hook.ORDERED)
        states = {}
        for job, state, hooks, has_timer in map(tuple, jobs):
            # One that is due later has a timer exactly while it is its turn; due or not, it is ready in its line.
            if job in self.later and state in (0, 2):
                assert (state, has_timer) == (0, True)
            states[job] = (2 if state == 0 else state, hooks)
        assert states == expected


@pytest.fixture
async def session(database: Logins) -> AsyncIterator[Session]:
    async with open_database(database.engine_dsn, login="engine", size_max=1) as engine, engine.session() as opened:
        yield opened


@pytest.mark.timeout(900)
async def test_postgres_keeps_the_lines_that_the_model_keeps(session: Session) -> None:
    loop = asyncio.get_running_loop()
    bounds = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))

    class Machine(SideBySide):
        def __init__(self) -> None:
            super().__init__(session, loop)

    await asyncio.to_thread(run_state_machine_as_test, Machine, settings=bounds)
