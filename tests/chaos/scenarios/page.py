"""The figures of docs/reliability.md: kept in a file beside this one, and shown on the page.

One run is kept for each scenario: the latest full one, or a short one where that was asked for.
"""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from tests.bench.document import replace_part
from tests.bench.figures import Figure, shown
from tests.chaos.scenarios.catalogue import SCENARIOS, Scenario

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"
KEPT = Path(__file__).parent / "figures.json"
PART = "reliability"


class Run(msgspec.Struct, kw_only=True):
    """One run of one scenario."""

    at: datetime
    full: bool
    machine: str
    figures: list[Figure]


def new_run(*, full: bool) -> Run:
    """An empty one, of now."""
    machine = f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"
    load = f"load average {os.getloadavg()[0]:.1f} when it began"
    return Run(at=datetime.now(UTC).replace(microsecond=0), full=full, machine=f"{machine}; {load}", figures=[])


def read_kept() -> dict[str, Run]:
    """The last kept run of each scenario."""
    return msgspec.json.decode(KEPT.read_bytes(), type=dict[str, Run]) if KEPT.exists() else {}


def keep(runs: Mapping[str, Run]) -> None:
    """Put these in the place of earlier ones, and show all of them on the page."""
    kept = read_kept() | dict(runs)
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    replace_part(PAGE, PART, block(kept))


def block(kept: Mapping[str, Run]) -> str:
    """What stands between the page's markers."""
    lines = ["| fault | what must hold | command | figure | reached |", "|---|---|---|---|---|"]
    for scenario in SCENARIOS.values():
        run = kept.get(scenario.name)
        told, verdict = (
            ("not measured yet", "") if run is None else (_key_figures(scenario, run), _verdict(scenario, run))
        )
        lines.append(f"| {scenario.fault} | {scenario.holds} | `{scenario.name}` | {told} | {verdict} |")
    parts = ["\n".join(lines)]
    parts += [_details(scenario, kept[scenario.name]) for scenario in SCENARIOS.values() if scenario.name in kept]
    return "\n\n".join(parts)


def judged(scenario: Scenario, figures: list[Figure]) -> str:
    """Each bound with the figure that it was measured by, as a Markdown table."""
    measured = {figure.name: figure for figure in figures}
    lines = ["| what | bound | figure | reached |", "|---|---:|---:|---|"]
    bound = {target.figure: target for target in scenario.targets}
    for figure in measured.values():
        target = bound.get(figure.name)
        if target is None:
            lines.append(f"| {figure.about} | | {_value(figure)} | |")
        else:
            reached = "yes" if target.is_reached(figure.value) else "**no**"
            lines.append(f"| {figure.about} | {_words(target.words(figure.unit))} | {_value(figure)} | {reached} |")
    return "\n".join(lines)


def missed(scenario: Scenario, figures: list[Figure]) -> list[str]:
    """The bounded figures that fell short, or were not measured at all."""
    measured = {figure.name: figure.value for figure in figures}
    return [
        target.figure
        for target in scenario.targets
        if target.figure not in measured or not target.is_reached(measured[target.figure])
    ]


def _details(scenario: Scenario, run: Run) -> str:
    full = " --full" if run.full else ""
    heading = f"### {scenario.fault[0].upper()}{scenario.fault[1:]}"
    told = f"`python -m tests.chaos.scenarios {scenario.name}{full}`, {run.at:%Y-%m-%d %H:%M} UTC, {run.machine}."
    return "\n\n".join([heading, told, judged(scenario, run.figures)])


def _key_figures(scenario: Scenario, run: Run) -> str:
    """Those that have a bound and aren't zero; the others are below."""
    bounded = {target.figure for target in scenario.targets}
    told = [f"{figure.about}: {_value(figure)}" for figure in run.figures if figure.name in bounded and figure.value]
    return "; ".join(told) or "all zero"


def _verdict(scenario: Scenario, run: Run) -> str:
    if missed(scenario, run.figures):
        return "**no**"
    return "yes" if run.full else "yes, in the short form"


def _value(figure: Figure) -> str:
    return f"{shown(figure.value)} {figure.unit}".strip()


def _words(bound: str) -> str:
    """A bound with two equal ends is one value."""
    low, dash, high = bound.partition(" – ")
    return high if dash and high.split(" ")[0] == low else bound
