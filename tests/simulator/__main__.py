"""`python -m tests.simulator --seeds 10000 --jobs 2`: simulate seeds, and tell which broke a promise and how.

`--seed N ...` replays these and prints the history of an offending job. `--switch NAME` switches a promise of the
design off in the models: then seeds are meant to fail. Exits with 1 when a seed has failed.
"""

import argparse
import gc
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import structlog

from tests.simulator.judge import Verdict, judge
from tests.simulator.switches import NAMES, Switches, switched

_CHUNK = 20
# Each run leaves cycles behind; looking for them after every one costs more than the run.
_COLLECT_EVERY = 25
_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work")
    parser.add_argument("--seed", type=int, nargs="+", help="these alone")
    parser.add_argument("--switch", action="append", choices=NAMES, default=[], help="a promise to switch off")
    parser.add_argument("--until-failure", action="store_true", help="end with the first seed that fails")
    options = parser.parse_args(arguments)
    switches = switched(*options.switch)
    quieten()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else options.seed
    began = time.perf_counter()
    failed: list[Verdict] = []
    count = steps = jobs = 0
    simulated = 0.0
    for verdict in verdicts(seeds, switches, processes=options.jobs):
        count += 1
        steps, jobs, simulated = steps + verdict.steps, jobs + verdict.jobs, simulated + verdict.seconds
        if verdict.problems:
            failed.append(verdict)
            if len(failed) <= _SHOWN:
                print(f"seed {verdict.seed} ({verdict.profile}): {verdict.problems[0]}", flush=True)
            if options.until_failure:
                break
    seconds = time.perf_counter() - began
    if failed:
        _show(min(failed, key=lambda verdict: verdict.seed))
        print(f"\nfailed: {' '.join(str(seed) for seed in sorted(verdict.seed for verdict in failed))}")
        print("kinds: " + "; ".join(f"{kind} x{n}" for kind, n in Counter(_kinds(failed)).most_common(20)))
    print(
        f"{count} seeds, {len(failed)} failed, in {seconds:.1f} s ({1000 * seconds / max(count, 1):.0f} s a thousand):"
        f" {jobs} jobs, {steps} steps, {simulated / 3600:.1f} h of virtual time"
    )
    return 1 if failed else 0


def verdicts(seeds: Sequence[int], switches: Switches, *, processes: int) -> Iterator[Verdict]:
    """The verdict on each seed, in order."""
    if processes <= 1 or len(seeds) == 1:
        yield from map(partial(_judge, switches=switches), seeds)
        return
    # Forked, so that nothing is imported twice: nothing has been started here that a fork could break.
    with multiprocessing.get_context("fork").Pool(processes, initializer=quieten) as pool:
        yield from pool.imap(partial(_judge, switches=switches), seeds, chunksize=_CHUNK)


def quieten() -> None:
    """No log lines, no search for garbage in the middle of a run, and what is imported is never looked through."""
    # A killed process leaves coroutines that nobody will ever wait for.
    warnings.simplefilter("ignore", RuntimeWarning)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=True)
    gc.collect()
    gc.freeze()
    gc.disable()


def _judge(seed: int, *, switches: Switches) -> Verdict:
    if seed % _COLLECT_EVERY == 0:
        gc.collect()
    return judge(seed, switches)


def _show(verdict: Verdict) -> None:
    print(f"\nseed {verdict.seed} ({verdict.profile}), {verdict.seconds:.0f} s of virtual time")
    for problem in verdict.problems[:20]:
        print(f"  {problem}")
    print("history of an offending job:")
    for line in verdict.history:
        print(f"  {line}")
    print(f"replay: python -m tests.simulator --seed {verdict.seed}")


def _kinds(failed: Sequence[Verdict]) -> Iterator[str]:
    for verdict in failed:
        # Without ids and numbers, so that like counts as like.
        yield " ".join(word for word in verdict.problems[0].split() if not any(sign.isdigit() for sign in word))[:80]


if __name__ == "__main__":
    sys.exit(main())
