"""Two gates in a row, both full most of the time, in Postgres and in memory: each line moves as the model says."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from barnabas.domain.gates import TENANT_LINE, Gate, LineKind, type_line
from barnabas.postgres.database import Session, open_database
from barnabas_local.database import Logins
from tests.integration.postgres.test_gates_model import TYPES, SideBySide
from tests.support.gate_model import ModelJob

SEEDS = 12
STEPS = 40


@dataclass(slots=True)
class Seen:
    """How often what this is about has happened."""

    moved_to_the_type_s_line: int = 0
    behind_a_head: int = 0


@pytest.fixture
async def session(database: Logins) -> AsyncIterator[Session]:
    async with open_database(database.engine_dsn, login="engine", size_max=1) as engine, engine.session() as opened:
        yield opened


@pytest.mark.timeout(900)
async def test_lines_before_two_gates_move_as_in_the_model(session: Session) -> None:
    loop = asyncio.get_running_loop()
    seen = Seen()

    for seed in range(SEEDS):
        await asyncio.to_thread(follow, SideBySide(session, loop), random.Random(seed), seen)

    assert seen.moved_to_the_type_s_line > 0
    assert seen.behind_a_head > 0


def follow(pair: SideBySide, chance: random.Random, seen: Seen) -> None:
    """Steps that keep both gates busy: the machine's own, drawn so that lines form at both."""
    pair.model.gates = {
        TENANT_LINE: Gate(allowed=chance.randint(2, 4)),
        type_line(1): Gate(allowed=chance.randint(1, 2)),
        type_line(2): Gate(allowed=chance.choice([None, 2, 3])),
    }
    pair.do(pair.real.start(pair.model.gates))
    for _ in range(STEPS):
        step = chance.choice(["submit", "end", "end", "end", "ask", "sweep", "ask_some", "pass_time"])
        if step == "submit" and len(pair.queued) < 30:
            some = chance.choice(TYPES)
            jobs = [(chance.randint(1, 2), chance.choice([some, *TYPES])) for _ in range(chance.randint(2, 7))]
            pair.submit_and_ask_one_by_one(jobs=jobs)
        elif step == "end" and pair.model.running:
            running = sorted(pair.model.running, key=lambda job: job.number)
            watch(pair, seen, chance.sample(running, chance.randint(1, min(2, len(running)))), chance.choice([0, 100]))
        elif step == "ask":
            # Whoever was called, in any number of claims.
            called = [job for job, seat in pair.model.seats.items() if not seat.is_asleep(pair.at)]
            chance.shuffle(called)
            for first in range(0, len(called), 2):
                pair.claim(sorted(called[first : first + 2], key=lambda job: job.number))
        elif step == "ask_some" and pair.queued:
            numbers = sorted(chance.sample(sorted(pair.queued), min(3, len(pair.queued))))
            pair.claim([pair.queued[number] for number in numbers])
        elif step == "sweep":
            pair.sweep(spare=chance.choice([0, 100]))
        elif step == "pass_time" and chance.random() < 0.2:
            pair.pass_time(steps=1)


def watch(pair: SideBySide, seen: Seen, jobs: list[ModelJob], spare: int) -> None:
    """An end of these, and what became of the tenant's line; whoever moved needn't stay where it came."""
    heads, before = pair.model.heads(), pair.model.copy()
    before.end(jobs)
    at_the_tenant_s = before.line(TENANT_LINE)
    before.make_way(pair.at)
    moved = [job for job in at_the_tenant_s if before.seats[job].line[0] is LineKind.TYPE]
    seen.moved_to_the_type_s_line += len(moved)
    seen.behind_a_head += sum(type_line(job.type_id) in heads for job in moved)
    pair.let_go(jobs, again=False, spare=spare)
