"""The figures to reach, each with the measured figure that it is judged by.

They hold for two cores and 24 GiB with Kafka, Postgres, all services and the load on one machine, payloads of 1 KB,
fsync on, limits and fairness on. On another machine the shares and ratios among them still mean something.
"""

from collections.abc import Mapping, Sequence

import msgspec

from tests.bench.figures import Figure, shown


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One bound on one figure; `low` and `high` where it has both."""

    figure: str
    low: float | None = None
    high: float | None = None

    def is_reached(self, value: float) -> bool:
        """Whether a measured value keeps the bound."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def words(self, unit: str) -> str:
        """The bound, for people."""
        if self.low is not None and self.high is not None:
            return f"{shown(self.low)} – {shown(self.high)} {unit}".strip()
        if self.low is not None:
            return f"≥ {shown(self.low)} {unit}".strip()
        assert self.high is not None
        return f"≤ {shown(self.high)} {unit}".strip()


def _at_least(figure: str, low: float) -> Target:
    return Target(figure=figure, low=low)


def _at_most(figure: str, high: float) -> Target:
    return Target(figure=figure, high=high)


TARGETS: Mapping[str, Sequence[Target]] = {
    "system": (
        _at_least("end_to_end.http_batch", 6_000),
        _at_least("end_to_end.kafka", 6_000),
        _at_least("ratio.end_to_end.http_batch", 0.30),
        _at_least("ratio.end_to_end.kafka", 0.30),
        _at_least("burst.http_batch", 15_000),
        _at_least("burst.kafka", 15_000),
        _at_least("singles.rate", 2_000),
        _at_most("commits.http_batch", 0.02),
        _at_most("commits.kafka", 0.02),
        _at_most("wal.http_batch", 3_200),
        _at_most("wal.http_small", 2_200),
        _at_most("cpu.http_batch.python", 100),
        _at_most("cpu.kafka.python", 100),
        _at_most("idle.call_start.p50", 7),
        _at_most("idle.call_start.p99", 25),
        _at_most("half.accept_done.p50", 30),
        _at_most("half.accept_done.p99", 150),
        _at_most("idle.queries", 2),
        _at_most("idle.cpu", 2),
    ),
    "fairness": (
        _at_most("flood.hold.wait.p99", 250),
        _at_most("flood.hold.ratio", 2),
        _at_most("flood.echo.wait.p99", 250),
        _at_most("flood.echo.ratio", 2),
        _at_least("shares.jain", 0.98),
        _at_most("shares.deviation", 5),
        _at_most("priorities.critical_wait.p99", 100),
        # Its 20 %, and no further from it than any share may be.
        _at_least("priorities.low", 19),
        _at_most("priorities.deviation", 5),
        Target(figure="sleepers.rate", low=147, high=153),
        _at_least("io.in_flight", 500),
        _at_least("io.rate", 2_500),
        _at_least("limits.ratio", 0.90),
        _at_most("partition.wait.p99", 250),
        _at_most("exact.violations", 0),
        _at_least("exact.used.places", 98),
        _at_least("exact.used.exact", 98),
        _at_least("exact.used.parts", 98),
        _at_most("backlog.rss.worker", 250),
        _at_most("backlog.rss.ingest", 250),
        _at_most("backlog.evictions", 0),
    ),
    "scale": (
        _at_least("scale.throughput_ratio", 0.90),
        _at_most("scale.list_ratio", 1.10),
    ),
}
"""By suite, in the order of the page."""


def target_table(suite: str, figures: Sequence[Figure]) -> str:
    """The targets of a suite whose figures were measured, as a Markdown table."""
    measured = {figure.name: figure for figure in figures}
    lines = ["| what | target | figure | reached |", "|---|---:|---:|---|"]
    for target in TARGETS[suite]:
        figure = measured.get(target.figure)
        if figure is not None:
            value = f"{shown(figure.value)} {figure.unit}".strip()
            reached = "yes" if target.is_reached(figure.value) else "**no**"
            lines.append(f"| {figure.about} | {target.words(figure.unit)} | {value} | {reached} |")
    return "\n".join(lines)
