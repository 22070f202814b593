"""At every crash point a process dies, under load, and no promise is broken."""

import os

import pytest

from barnabas.runtime.crash_points import CrashPoint
from tests.chaos.crash.run import run_points

SEED = int(os.environ.get("CHAOS_SEED", "20261122"))
TIMES = int(os.environ.get("CHAOS_CRASHES", "1"))


@pytest.mark.timeout(1800)
async def test_a_death_at_any_crash_point_breaks_no_promise() -> None:
    run = await run_points(list(CrashPoint), times=TIMES, seed=SEED)

    assert run.violations == [], f"seed {SEED}: {len(run.violations)} promises broken; {run.story}"
    assert run.wrong == [], f"seed {SEED}"
    assert run.deaths == dict.fromkeys(CrashPoint, TIMES)
