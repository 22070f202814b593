"""Slots run attempts and keep nothing of those that are over."""

import asyncio
import gc
import time
import weakref
from types import SimpleNamespace
from typing import Any

from barnabas.domain.attempts import Succeeded
from barnabas.sdk.running import Interruption, Run
from barnabas_worker.deadlines import Deadlines
from barnabas_worker.slots import Slots
from tests.support.eventually import eventually

_FAR_SECONDS = 3600.0


class _Attempt:
    """Ends when it is let go, or interrupted."""

    def __init__(self) -> None:
        self.interrupted: list[Interruption] = []
        self._over = asyncio.Event()

    async def run(self, _task: Any = None) -> Run:
        await self._over.wait()
        return Run(Succeeded(b"null"))

    def interrupt(self, reason: Interruption) -> None:
        self.interrupted.append(reason)
        self.end()

    def end(self) -> None:
        self._over.set()


def _held(attempt: _Attempt, seconds: float) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    return SimpleNamespace(attempt=attempt, deadline=deadline, ended=False, handler=SimpleNamespace(type="test"))


async def test_an_attempt_that_is_over_is_kept_by_nobody_until_its_deadline() -> None:
    loop = asyncio.get_running_loop()
    deadlines, over = Deadlines(loop), 0

    def on_end(_held: Any, _run: Run, _seconds: float) -> None:
        nonlocal over
        over += 1

    async with asyncio.TaskGroup() as group:
        slots = Slots(4, group, deadlines, on_end=on_end, on_too_many_stuck=lambda: None)
        attempts = [_Attempt() for _ in range(3)]
        kept = [weakref.ref(attempt) for attempt in attempts]
        for attempt in attempts:
            slots.start(_held(attempt, _FAR_SECONDS))
        await eventually(lambda: deadlines.longest() > _FAR_SECONDS / 2)
        for attempt in attempts:
            attempt.end()
        await eventually(lambda: over == 3 and slots.busy == 0)
        del attempt, attempts
        gc.collect()

        assert [ref() for ref in kept] == [None, None, None]
        assert deadlines.longest() == 0
        slots.close()


async def test_an_attempt_that_runs_past_its_deadline_is_interrupted_and_others_are_not() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    late, over, far = _Attempt(), _Attempt(), _Attempt()
    now = time.monotonic()
    deadlines.add(now + 0.01, over).attempt = None
    deadlines.add(now + _FAR_SECONDS, far)
    deadlines.add(now + 0.02, late)

    await eventually(lambda: late.interrupted)

    assert late.interrupted == [Interruption.TIMEOUT]
    assert not over.interrupted
    assert not far.interrupted
