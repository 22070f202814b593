"""Seeds of the simulator as tests: none breaks a promise, and each promise that is switched off makes one fail.

Each run is a process of its own: it takes the virtual clock for its own time.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.switches import NAMES

_ROOT = Path(__file__).parents[3]
# On a machine with nothing else to do the longest of these takes fifteen seconds.
_LIMIT_SECONDS = 1_200
_SEEDS = 100
# All of them fail within the first few dozens.
_SEEDS_TO_FAIL = 400

pytestmark = pytest.mark.timeout(_LIMIT_SECONDS)


def simulated(*arguments: str, hash_seed: str = "0") -> "subprocess.CompletedProcess[str]":
    """The simulator's own run."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulator", *arguments],
        cwd=_ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_SECONDS,
    )


def test_no_seed_breaks_a_promise() -> None:
    run = simulated("--seeds", str(_SEEDS))

    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-5_000:]
    assert f"{_SEEDS} seeds, 0 failed" in run.stdout


def test_seeds_that_have_failed_once_hold() -> None:
    # Offsets that went to Kafka a second time overtook newer ones; a wipe that nobody had looked at yet.
    run = simulated("--seed", "1869", "3907", "6029", "6199", "6840", "2264")

    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-5_000:]
    assert "6 seeds, 0 failed" in run.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_promise_that_is_switched_off_makes_a_seed_fail(name: str) -> None:
    run = simulated("--seeds", str(_SEEDS_TO_FAIL), "--switch", name, "--until-failure")

    assert run.returncode == 1, run.stdout[-5_000:] + run.stderr[-5_000:]
    assert "history of an offending job:" in run.stdout
    assert "replay: python -m tests.simulator --seed" in run.stdout


def test_a_seed_is_replayed_step_by_step() -> None:
    steps = {_steps(simulated("--seed", "6", hash_seed=hash_seed).stdout) for hash_seed in ("0", "1", "2")}

    assert len(steps) == 1


def test_a_seed_is_the_same_alone_and_after_others() -> None:
    alone = _steps(simulated("--first", "8", "--seeds", "1").stdout)
    before, both = (_steps(simulated("--first", "7", "--seeds", count).stdout) for count in ("1", "2"))

    assert both - before == alone


def _steps(told: str) -> int:
    found = re.search(r"(\d+) steps", told)
    assert found is not None, told
    return int(found[1])
