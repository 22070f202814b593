"""What makes an installation a test build: a process dies at an armed point, once, and says so before."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from barnabas.runtime.crash_points import CrashPoint
from tests.chaos.crash.arming import ARMED_VARIABLE, Arming
from tests.chaos.crash.system import BUILD, ROOT
from tests.chaos.ledger import LEDGER_VARIABLE, read_ledgers
from tests.chaos.ledger import CrashPoint as Crashed

_POINT = CrashPoint.TIMERS_AFTER_TAKE
_PASSES_THREE_TIMES = """
from barnabas.runtime.crash_points import CrashPoint, reach
for _ in range(3):
    reach(CrashPoint.TIMERS_AFTER_TAKE)
"""


async def pass_three_times(**variables: str) -> int:
    """A process that comes to the point three times; its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PASSES_THREE_TIMES,
        env=dict(os.environ) | {"PYTHONPATH": f"{BUILD}{os.pathsep}{ROOT}"} | variables,
    )
    return await process.wait()


def variables(directory: Path) -> dict[str, str]:
    return {ARMED_VARIABLE: str(directory / "armed"), LEDGER_VARIABLE: str(directory / "ledger")}


def deaths(directory: Path) -> list[str]:
    return [event.name for event in read_ledgers(directory / "ledger") if isinstance(event, Crashed)]


async def test_a_process_dies_at_the_armed_point_and_the_next_one_goes_on(tmp_path: Path) -> None:
    arming = Arming(tmp_path / "armed")
    arming.arm(_POINT)

    assert await pass_three_times(**variables(tmp_path)) == -signal.SIGKILL
    assert not arming.is_armed(_POINT)
    assert await pass_three_times(**variables(tmp_path)) == 0
    assert deaths(tmp_path) == [_POINT]


async def test_a_process_may_pass_a_point_before_it_dies_there(tmp_path: Path) -> None:
    arming = Arming(tmp_path / "armed")
    arming.arm(_POINT, after=3)

    # Each process counts for itself.
    assert await pass_three_times(**variables(tmp_path)) == 0
    assert arming.is_armed(_POINT)
    arming.arm(_POINT, after=2)
    assert await pass_three_times(**variables(tmp_path)) == -signal.SIGKILL


async def test_what_is_armed_for_others_or_disarmed_harms_nobody(tmp_path: Path) -> None:
    arming = Arming(tmp_path / "armed")
    arming.arm(CrashPoint.LEAD_AFTER_TAKE)
    arming.arm(_POINT)
    arming.disarm(_POINT)

    assert await pass_three_times(**variables(tmp_path)) == 0
    assert deaths(tmp_path) == []


async def test_without_the_variables_nothing_is_armed(tmp_path: Path) -> None:
    Arming(tmp_path / "armed").arm(_POINT)

    assert await pass_three_times() == 0
