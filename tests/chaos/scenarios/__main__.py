"""Single faults, measured: `python -m tests.chaos.scenarios NAME[,NAME]`, or `all`.

python -m tests.chaos.scenarios zombie          its short form: a minute or so, prints its figures
python -m tests.chaos.scenarios zombie --full   as docs/reliability.md says; keeps the figures and writes the page
python -m tests.chaos.scenarios --list          the names

Each starts a system of its own and leaves nothing running. Exits with 1 if a figure misses its bound.
"""

import argparse
import asyncio
import sys
import time
import traceback

import msgspec

from tests.chaos.scenarios import page
from tests.chaos.scenarios.catalogue import SCENARIOS


async def run(names: list[str], *, full: bool, write: bool) -> list[str]:
    """Measure each; the names of all figures that missed their bounds."""
    missed: list[str] = []
    for name in names:
        scenario = SCENARIOS[name]
        print(f"\n## {scenario.fault}: {scenario.holds}\n", flush=True)
        begin = time.monotonic()
        result = page.new_run(full=full)
        try:
            result.figures = await (scenario.full if full else scenario.quick)()
        except Exception:  # noqa: BLE001 - one that fails must not keep the others from being measured
            traceback.print_exc()
            missed.append(name)
            continue
        print(page.judged(scenario, result.figures))
        print(f"\ntook {time.monotonic() - begin:.0f} s\n{msgspec.json.encode(result).decode()}", flush=True)
        missed += page.missed(scenario, result.figures)
        if write:
            # At once: a later one that fails takes nothing of the earlier ones with it.
            page.keep({name: result})
    return missed


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.scenarios", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="?", default="", help="comma-separated, or all")
    parser.add_argument("--full", action="store_true", help="as long and as much as the page says")
    parser.add_argument("--write", action="store_true", help="write the short form's figures to the page as well")
    parser.add_argument("--list", action="store_true", help="the names")
    options = parser.parse_args()
    if options.list or not options.names:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:16} {scenario.fault}")
        return
    names = list(SCENARIOS) if options.names == "all" else options.names.split(",")
    unknown = sorted(set(names) - set(SCENARIOS))
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; --list has the names")
    missed = asyncio.run(run(names, full=options.full, write=options.full or options.write))
    if missed:
        print(f"\nmissed: {', '.join(missed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
