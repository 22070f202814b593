"""A run as a document: JSON on disk, the table in docs/benchmarks.md, and one run against another."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil

from barnabas_local.jars import KAFKA
from tests.bench.figures import Figure, shown
from tests.bench.targets import target_table

_BEGIN = "<!-- figures of the suite {suite}: written by the benchmark -->"
_END = "<!-- end of the suite {suite} -->"
_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "wal_compression")


class Run(msgspec.Struct, kw_only=True):
    """One run of the benchmark."""

    suite: str = "system"
    at: datetime
    command: str
    machine: dict[str, str]
    figures: list[Figure]


def new_run(suite: str, command: str) -> Run:
    """An empty one, of now."""
    return Run(suite=suite, at=datetime.now(UTC).replace(microsecond=0), command=command, machine={}, figures=[])


async def describe_machine(database: Any, *, workers: int, settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What a reader needs to know to compare."""
    server = [f"{name} {await database.fetchval('SELECT current_setting($1)', name)}" for name in _SETTINGS]
    changed = ", ".join(f"{key}={value}" for key, value in settings) or "default settings"
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB,"
        f" {platform.system()} {platform.release()}; load average {os.getloadavg()[0]:.1f} when the run began",
        "python": platform.python_version(),
        "postgres": f"{await database.fetchval('SHOW server_version')}: {', '.join(server)}",
        "kafka": f"{KAFKA.rpartition(':')[2]}, one broker, no fsync per record (Kafka's default)",
        "system": f"1 ingest, {workers} worker{'s' * (workers > 1)}, 1 notifier, 1 retry-scheduler, {changed};"
        " Kafka, Postgres, the services and the load share the cores",
    }


def write_json(run: Run, path: Path) -> None:
    """Keep the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")


def read_json(path: Path) -> Run:
    """A kept run."""
    return msgspec.json.decode(path.read_bytes(), type=Run)


def merged(before: Run, after: Run) -> Run:
    """An earlier run with what a later one has measured again in its place, and what is new at the end."""
    again = {figure.name: figure for figure in after.figures}
    known = {figure.name for figure in before.figures}
    figures = [again.get(figure.name, figure) for figure in before.figures]
    return Run(
        suite=after.suite,
        at=after.at,
        command=f"{before.command}`, then `{after.command}",
        machine=before.machine | {"again": f"with {after.machine['system']}"},
        figures=figures + [figure for figure in after.figures if figure.name not in known],
    )


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| what | figure | lowest – highest window | unit |", "|---|---:|---:|---|"]
    for figure in figures:
        spread = "" if figure.low is None or figure.high is None else f"{shown(figure.low)} – {shown(figure.high)}"
        lines.append(f"| {figure.about} | {shown(figure.value)} | {spread} | {figure.unit} |")
    return "\n".join(lines)


def write_page(run: Run, page: Path) -> None:
    """Replace what the page says of this suite by this run."""
    facts = "\n".join(f"- {name}: {value}" for name, value in run.machine.items())
    block = "\n\n".join(
        [
            f"Measured {run.at:%Y-%m-%d %H:%M} UTC by `{run.command}`.",
            facts,
            target_table(run.suite, run.figures),
            "All figures of that run:",
            table(run.figures),
        ]
    )
    replace_part(page, run.suite, block)


def replace_part(page: Path, suite: str, block: str) -> None:
    """Put a block between the page's markers of a suite."""
    text = page.read_text()
    first, last = _BEGIN.format(suite=suite), _END.format(suite=suite)
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    assert begin, f"{page} has no line {first}"
    assert end, f"{page} has no line {last}"
    page.write_text(f"{before}{begin}\n\n{block}\n\n{end}{after}")


def compared(run: Run, baseline: Run) -> str:
    """Each figure beside the baseline's, and the change; better is marked +, worse -, by what the figure means."""
    known = {figure.name: figure for figure in baseline.figures}
    width = max((len(figure.about) for figure in run.figures), default=0)
    dates = f"{baseline.at:%Y-%m-%d %H:%M} to {run.at:%Y-%m-%d %H:%M}"
    lines = [f"{'':{width}} {'baseline':>12} {'this run':>12}  change ({dates})"]
    for figure in run.figures:
        old = known.get(figure.name)
        before = "-" if old is None else shown(old.value)
        change = "" if old is None else _change(old, figure)
        lines.append(f"{figure.about:{width}} {before:>12} {shown(figure.value):>12}  {change} {figure.unit}")
    return "\n".join(lines)


def _change(old: Figure, new: Figure) -> str:
    if not old.value:
        return ""
    share = new.value / old.value - 1
    better = (share > 0) == new.more_is_better
    return f"{share:+.0%} {'better' if better else 'worse'}" if abs(share) >= 0.005 else "same"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
