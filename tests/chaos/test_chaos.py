"""The short form of a chaos run: two minutes of faults, some three in all, and the same verdict as the long one.

`CHAOS_SEED` chooses another seed, which is how a failure is looked at again; `make chaos` is the long form.
"""

import os
from pathlib import Path

import pytest

from tests.chaos.report import write_report
from tests.chaos.run import RunOptions, run

SEED = int(os.environ.get("CHAOS_SEED", "20261122"))
# Hardly a moment of it is far from a fault, and in the calm at its end a busy machine may stand still for a lease.
_FAULT_WINDOW_SECONDS = 1800.0
_REPORT = Path(".barnabas") / "chaos" / f"short-{SEED}"


# Longer than all its waits together, which say better what is wrong.
@pytest.mark.timeout(1800)
async def test_nothing_accepted_is_lost_and_nothing_happens_twice_whatever_is_broken() -> None:
    options = RunOptions(seed=SEED, seconds=120, jobs=8_000, fault_window_seconds=_FAULT_WINDOW_SECONDS, keep=_REPORT)
    outcome = await run(options, say=print)
    text = write_report(outcome, _REPORT)
    print(text)

    assert outcome.is_good, text
    assert outcome.tally is not None
    assert outcome.tally.jobs >= options.jobs
    assert outcome.done, "no fault was put on"
