import asyncio

import pytest

from barnabas.errors import DatabaseUnavailableError
from barnabas.runtime.periodic import every, retry_pause
from barnabas.runtime.stop import Stop


async def test_a_step_runs_again_and_again_until_the_stop() -> None:
    stop = Stop()
    runs = 0

    async def step() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            stop.set()

    async with asyncio.timeout(60):
        await every(0.001, step, stop)

    assert runs == 3


async def test_a_stop_during_the_rest_ends_it_at_once() -> None:
    stop = Stop()

    async def step() -> None:
        raise AssertionError

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(every(3_600, step, stop, jitter=lambda: 0.5))
        stop.set()


async def test_a_transient_error_is_tried_again_and_another_one_ends_it() -> None:
    stop = Stop()
    runs = 0

    async def step() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise DatabaseUnavailableError
        raise KeyError("our own mistake")

    async with asyncio.timeout(60):
        with pytest.raises(KeyError):
            await every(0.001, step, stop)

    assert runs == 3


@pytest.mark.parametrize(
    ("seconds", "failures", "jitter", "pause"),
    [
        (1.0, 1, 1.0, 2.0),
        (1.0, 1, 0.0, 1.0),
        (1.0, 2, 1.0, 4.0),
        (1.0, 3, 1.0, 5.0),
        (1.0, 10_000, 0.0, 2.5),
        (60.0, 3, 1.0, 60.0),
    ],
)
def test_the_pause_doubles_is_capped_and_loses_up_to_half(
    seconds: float, failures: int, jitter: float, pause: float
) -> None:
    assert retry_pause(seconds, failures, jitter=jitter) == pause
