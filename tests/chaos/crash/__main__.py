"""`python -m tests.chaos.crash --times 50 [--points a,b] [--seed N]`: every crash point, so many times."""

import argparse
import asyncio
import sys

from barnabas.runtime.crash_points import CrashPoint
from tests.chaos.crash.run import CrashRun, run_points

_SHOWN_MAX = 20


def main() -> int:
    """Run it and say what came of it; 1 when a promise was broken."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos.crash", description=__doc__)
    options.add_argument("--times", type=int, default=50, help="deaths at each point")
    options.add_argument("--round", type=int, default=5, help="deaths at each point between two checks")
    options.add_argument("--points", help="comma-separated names; all of them unless given")
    options.add_argument("--seed", type=int, default=20261122)
    options.add_argument("--verbose", action="store_true", help="a line for each death")
    options.add_argument("--list", action="store_true", help="show the points and what is true at each")
    given = options.parse_args()
    if given.list:
        for point in CrashPoint:
            print(f"{point:<28} {point.meaning}")
        return 0
    points = [CrashPoint(name) for name in given.points.split(",")] if given.points else list(CrashPoint)
    run = asyncio.run(
        run_points(
            points,
            times=given.times,
            seed=given.seed,
            round_times=given.round,
            say_death=print if given.verbose else lambda _: None,
        )
    )
    _show(run)
    return 0 if run.is_good else 1


def _show(run: CrashRun) -> None:
    for name, count in sorted(run.deaths.items()):
        print(f"{name:<28} {count:>5}")
    print(
        f"seed {run.seed}: {run.deaths.total()} deaths at {len(run.deaths)} points in {run.seconds:.0f} s,"
        f" {run.jobs} jobs, {len(run.violations)} promises broken"
    )
    for broken in [*run.violations, *run.wrong][:_SHOWN_MAX]:
        print(f"  {broken}")
    print(run.story)


if __name__ == "__main__":
    sys.exit(main())
