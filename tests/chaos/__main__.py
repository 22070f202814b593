"""`python -m tests.chaos --seconds 600 --seed 1 --jobs 100000`: one chaos run, its report in .barnabas/chaos.

`python -m tests.chaos.scenarios NAME` is one fault with its figures instead.
"""

import argparse
import asyncio
import random
import sys
from pathlib import Path

from tests.chaos.report import write_report
from tests.chaos.run import RunOptions, run

_REPORTS = Path(".barnabas") / "chaos"


def main(arguments: list[str]) -> int:
    """Exit code 0 when every promise held."""
    given = _parse(arguments)
    directory = given.report or _REPORTS / f"seed-{given.seed}"
    options = RunOptions(
        seed=given.seed, seconds=given.seconds, jobs=given.jobs, lease_seconds=given.lease, keep=directory
    )
    outcome = asyncio.run(run(options, say=lambda line: print(line, flush=True)))
    print(write_report(outcome, directory))
    print(f"written to {directory}")
    return 0 if outcome.is_good else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="one at random")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long faults are put on")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--lease", type=float, default=10.0, help="BARNABAS_LEASE_SECONDS of the system")
    parser.add_argument("--report", type=Path, help=f"a directory; {_REPORTS}/seed-N unless given")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
