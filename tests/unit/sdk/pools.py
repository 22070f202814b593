"""Pools of real child processes for the tests of isolated attempts."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from barnabas.domain.attempts import Outcome, Succeeded
from barnabas.sdk.context import Context
from barnabas.sdk.isolated import IsolatedAttempt
from barnabas.sdk.loading import load_handlers
from barnabas.sdk.processes import ChildProcesses
from barnabas.sdk.starting import ChildStarter
from tests.support.eventually import eventually
from tests.unit.sdk.builders import context

APP = "tests.unit.sdk.isolated_app:app"
HANDLERS = load_handlers(APP)
# A machine that runs many tests at once may take long to start a process, and to end one.
PATIENCE_SECONDS = 120.0


@asynccontextmanager
async def a_pool(
    *, app: str = APP, running_max: int = 2, forks: bool = True, **limits: Any
) -> AsyncIterator[ChildProcesses]:
    starter = ChildStarter(app=app, forks=forks, log_level="warning")
    pool = ChildProcesses(starter, **({"running_max": running_max, "wait_seconds": PATIENCE_SECONDS} | limits))
    try:
        yield pool
        await close(pool)
    finally:
        await pool.close()
        await starter.close()


async def close(pool: ChildProcesses) -> None:
    """Closing gives what it has killed a second to be gone, and a starved machine may take longer."""
    await pool.close()
    await eventually(lambda: pool.alive, until=lambda alive: alive == 0)


def attempt(
    children: ChildProcesses,
    job_type: str,
    payload: Any = None,
    *,
    timeout: float = 600.0,
    grace: float = 0.05,
    ctx: Context | None = None,
) -> IsolatedAttempt:
    return IsolatedAttempt(
        HANDLERS[job_type],
        json.dumps(payload).encode(),
        ctx or context(),
        children=children,
        timeout_seconds=timeout,
        cancel_grace_seconds=grace,
    )


async def ran(children: ChildProcesses, job_type: str, payload: Any = None, **more: Any) -> Outcome:
    run = await attempt(children, job_type, payload, **more).run()
    assert run.still_running is None
    return run.outcome


def result(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.result or b"null")
