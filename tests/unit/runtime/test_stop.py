"""The stop wakes whoever waits for something else."""

import asyncio

from barnabas.runtime.stop import Stop
from barnabas.runtime.within import set_within


async def test_a_loop_that_waits_for_work_is_woken_by_the_stop() -> None:
    stop, work = Stop(), asyncio.Event()
    stop.on_set(work.set)
    waiting = asyncio.create_task(set_within(work, 3_600.0))
    await asyncio.sleep(0)
    stop.set()

    async with asyncio.timeout(60):
        assert await waiting


def test_who_comes_after_the_stop_is_called_at_once_and_everybody_only_once() -> None:
    stop = Stop()
    calls: list[str] = []
    stop.on_set(lambda: calls.append("before"))
    stop.set()
    stop.on_set(lambda: calls.append("after"))
    stop.set()

    assert calls == ["before", "after"]


async def test_an_event_that_is_not_set_in_time_is_a_no() -> None:
    event = asyncio.Event()

    assert not await set_within(event, 0.01)
    event.set()
    assert await set_within(event, 0.0)
