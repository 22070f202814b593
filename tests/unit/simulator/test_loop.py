"""The simulator's loop: virtual time in order, and processes that die and stand still at any step."""

import asyncio

from tests.simulator.loop import STARTED_AT, Process, VirtualLoop


def run(loop: VirtualLoop, seconds: float) -> None:
    asyncio._set_running_loop(loop)
    try:
        loop.run(STARTED_AT + seconds)
    finally:
        asyncio._set_running_loop(None)
        loop.close()


def new_loop() -> VirtualLoop:
    return VirtualLoop()  # type: ignore[abstract]  # nobody asks for sockets and threads in here


async def count_seconds(loop: VirtualLoop, seen: list[float]) -> None:
    while True:
        await asyncio.sleep(1.0)
        seen.append(loop.now - STARTED_AT)


def test_time_passes_at_once_and_in_order() -> None:
    loop, seen = new_loop(), list[float]()
    loop.spawn(count_seconds(loop, seen))

    run(loop, 3.5)

    assert seen == [1.0, 2.0, 3.0]
    assert loop.now == STARTED_AT + 3.5


def test_a_killed_process_does_nothing_any_more_not_even_its_clean_up() -> None:
    loop, seen, cleaned = new_loop(), list[float](), list[bool]()
    process = Process("one", 1)

    async def live() -> None:
        try:
            await count_seconds(loop, seen)
        finally:
            # The loop's end closes what is left, and time stands still by then.
            cleaned.append(loop.now < STARTED_AT + 5.0)

    loop.spawn(live(), process)
    loop.outside(loop.kill, process, delay=2.5)

    run(loop, 5.0)

    assert seen == [1.0, 2.0]
    assert cleaned == [False]


def test_a_paused_process_does_what_was_due_when_it_goes_on() -> None:
    loop, seen = new_loop(), list[float]()
    process = Process("one", 1)
    loop.spawn(count_seconds(loop, seen), process)
    loop.outside(loop.pause, process, delay=1.5)
    loop.outside(loop.go_on, process, delay=4.25)

    run(loop, 6.0)

    assert seen == [1.0, 4.25, 5.25]


def test_a_time_out_ends_a_wait() -> None:
    loop, seen = new_loop(), list[float]()

    async def wait() -> None:
        try:
            async with asyncio.timeout(2.0):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append(loop.now - STARTED_AT)

    loop.spawn(wait())

    run(loop, 3.0)

    assert seen == [2.0]
    assert not loop.errors


def test_what_escapes_from_a_task_is_told() -> None:
    loop = new_loop()

    async def fail() -> None:
        raise ValueError("of the test")

    loop.spawn(fail(), Process("one", 1))

    run(loop, 1.0)

    assert loop.errors == ["one#1: ValueError('of the test')"]
