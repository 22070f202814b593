"""What the simulator has found, each as small as it can be."""

import asyncio
from datetime import timedelta
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from barnabas.domain.ids import uuid7
from barnabas.domain.jobs import JobState
from barnabas.postgres.database import ConflictError
from barnabas.postgres.queries import query
from barnabas.postgres.turns import Claim, Turn, WokenJob, take_turn
from barnabas.runtime.stop import Stop
from barnabas_worker.holdings import Holdings
from barnabas_worker.look_ahead import Records
from barnabas_worker.recall import recall_once
from barnabas_worker.take import _find_room
from tests.simulator.database import ModelDatabase, ModelServer, ModelSession
from tests.simulator.loop import STARTED_AT, Process, VirtualLoop
from tests.simulator.statements_deliveries import ModelStatements
from tests.simulator.switches import Switches


def test_a_worker_outlives_a_deadlock_of_the_statement_that_parks_its_surplus() -> None:
    loop = VirtualLoop()  # type: ignore[abstract]  # nobody asks for sockets and threads in here
    statements = ModelStatements(loop.time, Switches(), hold_dead=False)
    server = ModelServer(loop, Random(1), statements)

    def deadlock(*_: object) -> list[Any]:
        raise ConflictError("a deadlock's victim")

    statements.park_backlog = deadlock  # type: ignore[assignment, method-assign]
    records = Records(bytes_max=800)
    flood = [WokenJob(UUID(int=1), UUID(int=number), 0, 1, 0, 0) for number in range(2, 10)]
    records.push_woken(flood)
    resources: Any = SimpleNamespace(records=records, database=ModelDatabase(server, Process("worker-1", 1)))
    asyncio._set_running_loop(loop)
    try:
        rested = loop.spawn(_find_room(resources, 1, Stop()), Process("worker-1", 1))
        loop.run(STARTED_AT + 60.0)
    finally:
        asyncio._set_running_loop(None)
        loop.close()

    assert rested.done()
    rested.result()


def test_a_cancelled_job_whose_claim_was_never_heard_of_is_ended_by_the_recall() -> None:
    loop = VirtualLoop()  # type: ignore[abstract]  # nobody asks for sockets and threads in here
    statements = ModelStatements(loop.time, Switches(), hold_dead=False)
    process, tenant, job, worker, batch = Process("worker-1", 1), *(UUID(int=number) for number in range(1, 5))
    database = ModelDatabase(ModelServer(loop, Random(1), statements), process)
    statements.insert_worker(worker, "worker", "", 1, 1, [1], timedelta(seconds=300), [0])
    nothing: list[Any] = [()] * 4
    statements.accept_jobs([tenant], [job], [1], [1], (), (), (), (), [b"{}"], *nothing, ())
    claim = Turn(worker_id=worker, claim=Claim(batch_id=batch, keys=[(tenant, job)], types={1: 1_000}))
    resources: Any = SimpleNamespace(
        database=database,
        identity=SimpleNamespace(worker_id=worker),
        holdings=Holdings(),
        ids=SimpleNamespace(mint=lambda: uuid7(int(loop.time() * 1_000), bytes(10))),
    )

    async def live() -> None:
        session: Any = ModelSession(ModelServer(loop, Random(1), statements), process)
        await take_turn(session, claim)
        statements.cancel_job(tenant, job)
        await recall_once(resources)

    asyncio._set_running_loop(loop)
    try:
        done = loop.spawn(live(), process)
        loop.run(STARTED_AT + 60.0)
    finally:
        asyncio._set_running_loop(None)
        loop.close()
    done.result()

    open_job = statements.tables.jobs.get((tenant, job))
    assert open_job is None or open_job.state is not JobState.RUNNING or statements.tables.batches


def test_a_heartbeat_row_stays_while_a_lease_batch_stands_under_it() -> None:
    assert "lease_batches" in query("delete_worker")
