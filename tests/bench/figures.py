"""What a benchmark measures, as values: one figure per row of the table, and how a list of samples becomes one."""

import math
import statistics
from collections.abc import Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured quantity. `low` and `high` are the extremes over the windows of the run, where it has several."""

    name: str
    """Stable: the comparison matches by it."""
    about: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    more_is_better: bool = False


def median(name: str, about: str, unit: str, samples: Sequence[float], *, more_is_better: bool = False) -> Figure:
    """The median of the windows, with the worst and the best of them."""
    return Figure(
        name=name,
        about=about,
        unit=unit,
        value=statistics.median(samples),
        low=min(samples),
        high=max(samples),
        more_is_better=more_is_better,
    )


def once(name: str, about: str, unit: str, value: float, *, more_is_better: bool = False) -> Figure:
    """A quantity that the run has one sample of."""
    return Figure(name=name, about=about, unit=unit, value=value, more_is_better=more_is_better)


def percentiles(name: str, about: str, windows: Sequence[Sequence[float]]) -> list[Figure]:
    """p50 and p99 in ms over all samples (given in seconds), and their extremes over the windows."""
    kept = [window for window in windows if window]
    everything = [sample for window in kept for sample in window]
    figures = []
    for share, label in ((0.50, "p50"), (0.99, "p99")):
        by_window = [percentile(window, share) * 1e3 for window in kept]
        figures.append(
            Figure(
                name=f"{name}.{label}",
                about=f"{about}, {label}",
                unit="ms",
                value=percentile(everything, share) * 1e3,
                low=min(by_window),
                high=max(by_window),
            )
        )
    return figures


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that `share` of them don't exceed (nearest rank)."""
    assert samples, "a percentile of nothing"
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def shown(value: float) -> str:
    """A value with three digits or so, for people."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def split(samples: Sequence[tuple[float, float]], *, windows: int) -> list[list[float]]:
    """(moment, value) pairs as the values of equally long windows."""
    if not samples:
        return []
    begin = min(at for at, _ in samples)
    length = (max(at for at, _ in samples) - begin) / windows or 1.0
    out: list[list[float]] = [[] for _ in range(windows)]
    for at, value in samples:
        out[min(windows - 1, int((at - begin) / length))].append(value)
    return out
