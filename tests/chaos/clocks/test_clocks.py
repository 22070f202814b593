"""The wrong clocks themselves: what they move, and what they leave alone."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.clocks.clocks import Clocks, may_shift
from tests.support.eventually import eventually

pytestmark = pytest.mark.skipif(not may_shift(), reason="needs glibc and a C compiler")

_TELL = """
import ctypes, datetime, sys, time
for _ in sys.stdin:
    now = datetime.datetime.now(datetime.UTC).timestamp()
    print(time.time(), time.time_ns() / 1e9, now, ctypes.CDLL(None).time(None), time.monotonic(), flush=True)
"""
_WAIT = """
import ctypes, sys, threading, time
libc = ctypes.CDLL(None)
condition, mutex = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
for line in sys.stdin:
    seconds, signalled = line.split()
    until = (ctypes.c_int64 * 2)(int(time.time() + float(seconds)), 0)
    if signalled == "signalled":
        threading.Timer(0.3, libc.pthread_cond_signal, [condition]).start()
    print("waits", flush=True)
    began = time.monotonic()
    libc.pthread_mutex_lock(mutex)
    answer = libc.pthread_cond_timedwait(condition, mutex, until)
    libc.pthread_mutex_unlock(mutex)
    print(answer, time.monotonic() - began, flush=True)
"""


class Child:
    """A Python of the test build that answers line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    async def ask(self, line: str = "") -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return await self.told()

    async def told(self) -> list[str]:
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            return (await self._process.stdout.readline()).decode().split()


@asynccontextmanager
async def a_child(clocks: Clocks, code: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=clocks.env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    return Clocks(tmp_path_factory.mktemp("clocks"))


async def ahead(child: Child) -> list[float]:
    """How far a process' wall clocks are ahead of ours, and last its monotonic one."""
    *walls, monotonic = map(float, await child.ask())
    return [*(wall - time.time() for wall in walls), monotonic - time.monotonic()]


async def test_a_shift_moves_all_wall_clocks_of_a_running_process_and_no_other(clocks: Clocks) -> None:
    async with a_child(clocks, _TELL) as one, a_child(clocks, _TELL) as other:
        for seconds in (0.0, 600.0, -600.0, 0.0):
            await one.ask()
            clocks.shift(one.pid, seconds)
            *walls, monotonic = await ahead(one)

            # `time` counts whole seconds, and an answer takes a moment.
            assert walls == pytest.approx([seconds] * 4, abs=60)
            assert [*await ahead(other), monotonic] == pytest.approx([0.0] * 6, abs=60)


async def test_a_drift_adds_up_and_ends_with_its_block(clocks: Clocks) -> None:
    async with a_child(clocks, _TELL) as child:
        await child.ask()
        async with clocks.drifting(child.pid, 21.0, turn_seconds=60):
            await eventually(lambda: ahead(child), until=lambda by: by[0] > 20)

        assert (await ahead(child))[0] < 15


async def test_a_wait_for_a_moment_lasts_longer_when_the_clock_is_set_back(clocks: Clocks) -> None:
    async with a_child(clocks, _WAIT) as child:
        await child.ask("8 alone")
        clocks.shift(child.pid, -8)
        answer, seconds = await child.told()

        # `until` is in whole seconds.
        assert (int(answer), float(seconds) > 14.5) == (110, True)


async def test_a_wait_for_a_moment_is_over_when_the_clock_is_set_past_it(clocks: Clocks) -> None:
    async with a_child(clocks, _WAIT) as child:
        await child.ask("600 alone")
        clocks.shift(child.pid, 600)
        answer, seconds = await child.told()

        assert (int(answer), float(seconds) < 60) == (110, True)


async def test_a_signal_ends_a_wait_whatever_the_clock_says(clocks: Clocks) -> None:
    async with a_child(clocks, _WAIT) as child:
        await child.ask("30 signalled")
        clocks.shift(child.pid, -600)
        answer, seconds = await child.told()

        assert (int(answer), float(seconds) < 60) == (0, True)
