"""The benchmark: `python -m tests.bench` starts a whole system, loads it, and writes down what it saw.

python -m tests.bench                        the path, its costs and the machine's limits, under six minutes
python -m tests.bench fairness               who waits for whom, and whether limits hold; about fifteen minutes
python -m tests.bench scale                  the same work beside 10 thousand, 1 and 5 million finished rows
python -m tests.bench --quick                everything for a moment each; writes no page
python -m tests.bench --only steady,limits   some of it
python -m tests.bench --compare              beside the kept baseline of the suite
python -m tests.bench --keep                 keep this run as that baseline
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

import uvloop

from tests.bench import document
from tests.bench.suites import SUITES, Sizes, Suite
from tests.bench.system import open_system
from tests.bench.targets import target_table
from tests.support.stack import open_stack

_APP = "tests.bench.app:app"
_PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"


async def run(suite: Suite, options: argparse.Namespace) -> None:
    """One run."""
    result = document.new_run(suite.name, shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]))
    wanted = options.only.split(",") if options.only else list(suite.names)
    path = options.output or Path(".barnabas/bench") / f"{suite.name}-{result.at:%Y%m%dT%H%M%SZ}.json"
    sizes = Sizes(options.quick, options.starts, options.backlog_jobs, options.rows)
    for stage in suite.stages:
        only = [name for name in stage.names if name in wanted]
        if not only:
            continue
        workers = stage.workers or options.workers
        async with (
            open_stack(workers=workers, app=_APP, env=dict(options.set)) as stack,
            open_system(stack) as system,
        ):
            if not result.machine:
                result.machine = await document.describe_machine(system.database, workers=workers, settings=options.set)
            async for figures in suite.measure(system, only, sizes):
                result.figures += figures
                print(document.table(figures), flush=True)
                # A later measure that fails takes nothing of the earlier ones with it.
                document.write_json(result, path)
    if options.into is not None:
        result = document.merged(document.read_json(options.into), result)
        document.write_json(result, path)
    print(f"\nwritten: {path}\n\n{target_table(suite.name, result.figures)}\n")
    if options.into is not None or not (options.quick or options.only):
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


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "suite",
        nargs="?",
        choices=list(SUITES),
        default="system",
        help="; ".join(f"{suite.name}: {suite.about}" for suite in SUITES.values()),
    )
    parser.add_argument("--quick", action="store_true", help="a moment for each measure; for trying, not for figures")
    names = "; ".join(f"{suite.name}: {','.join(suite.names)}" for suite in SUITES.values())
    parser.add_argument("--only", help=f"some of the suite's measures. {names}")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", help="a setting, BARNABAS_SLOTS=500"
    )
    parser.add_argument("--starts", type=int, help="starts that the scenario `exact` looks at; 1000000 for the target")
    parser.add_argument("--backlog-jobs", type=int, help="jobs in line in the scenario `backlog`")
    parser.add_argument("--rows", type=_counts, help="finished rows of the suite scale: 10000,1000000,5000000")
    parser.add_argument("--output", type=Path, help="where the JSON goes; by default a new file under .barnabas/bench")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="JSON",
        help="an earlier run of the suite, to put this one's figures into",
    )
    parser.add_argument("--compare", action="store_true", help="print this run beside the baseline")
    parser.add_argument("--keep", action="store_true", help="make this run the baseline")
    parser.add_argument("--baseline", type=Path, help="the baseline's file; tests/bench/baseline*.json by default")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    options.baseline = options.baseline or suite.baseline
    unknown = set(options.only.split(",")) - set(suite.names) if options.only else set()
    if unknown:
        parser.error(f"--only knows {', '.join(suite.names)} here; not {', '.join(sorted(unknown))}")
    if options.compare and not options.baseline.exists():
        parser.error(f"there is no {options.baseline}: keep one with --keep")
    begin = time.monotonic()
    uvloop.run(run(suite, options))
    print(f"took {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
