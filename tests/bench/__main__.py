"""The benchmark: `python -m tests.bench` starts a whole system, loads it, and writes down what it saw.

python -m tests.bench                        everything, under five minutes; writes docs/benchmarks.md
python -m tests.bench --quick                everything for a moment each, under one; writes no page
python -m tests.bench --only steady,limits   some of it
python -m tests.bench --compare              beside the kept baseline (tests/bench/baseline.json)
python -m tests.bench --keep                 keep this run as the baseline
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

import uvloop

from tests.bench import document
from tests.bench.measures import FULL, NAMES, QUICK, measure
from tests.bench.system import open_system
from tests.support.stack import open_stack

_HERE = Path(__file__).parent
_BASELINE = _HERE / "baseline.json"
_PAGE = _HERE.parent.parent / "docs" / "benchmarks.md"


async def run(options: argparse.Namespace) -> None:
    """One run."""
    result = document.new_run(shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]))
    only = options.only.split(",") if options.only else list(NAMES)
    async with (
        open_stack(workers=options.workers, app="tests.bench.app:app", env=dict(options.set)) as stack,
        open_system(stack, job_type="stamp") as system,
    ):
        result.machine = await document.describe_machine(system.database, workers=options.workers, settings=options.set)
        async for figures in measure(system, only=only, plan=QUICK if options.quick else FULL):
            result.figures += figures
            print(document.table(figures), flush=True)
    path = options.output or Path(".barnabas/bench") / f"{result.at:%Y%m%dT%H%M%SZ}.json"
    document.write_json(result, path)
    print(f"\nwritten: {path}")
    if not options.quick and not options.only:
        document.write_page(result, _PAGE)
        print(f"written: {_PAGE}")
    if options.compare:
        print(document.compared(result, document.read_json(options.baseline)))
    if options.keep:
        document.write_json(result, options.baseline)
        print(f"kept: {options.baseline}")


def _setting(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a moment for each measure; for trying, not for figures")
    parser.add_argument("--only", help=f"some of: {','.join(NAMES)}")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", help="a setting, BARNABAS_SLOTS=500"
    )
    parser.add_argument("--output", type=Path, help="where the JSON goes; .barnabas/bench/<time>.json by default")
    parser.add_argument("--compare", action="store_true", help="print this run beside the baseline")
    parser.add_argument("--keep", action="store_true", help="make this run the baseline")
    parser.add_argument("--baseline", type=Path, default=_BASELINE, help="the baseline's file")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(NAMES) if options.only else set()
    if unknown:
        parser.error(f"--only knows {', '.join(NAMES)}; not {', '.join(sorted(unknown))}")
    if options.compare and not options.baseline.exists():
        parser.error(f"there is no {options.baseline}: keep one with --keep")
    begin = time.monotonic()
    uvloop.run(run(options))
    print(f"took {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
