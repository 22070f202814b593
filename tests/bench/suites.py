"""The suites: what each measures, on how many stacks, and where its figures are kept."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import fairness, fairness_plan, measures, scale
from tests.bench.figures import Figure
from tests.bench.system import System

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the command line may change of a plan."""

    quick: bool = False
    starts: int | None = None
    backlog_jobs: int | None = None
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Measures that share a stack."""

    names: tuple[str, ...]
    workers: int | None = None
    """As many as the command line says, unless the measure is about a number of its own."""


@dataclass(frozen=True, slots=True)
class Suite:
    """One make target."""

    name: str
    about: str
    stages: tuple[Stage, ...]
    baseline: Path
    measure: Callable[[System, Sequence[str], Sizes], AsyncIterator[Sequence[Figure]]]

    @property
    def names(self) -> tuple[str, ...]:
        """All that can be asked for."""
        return tuple(name for stage in self.stages for name in stage.names)


def _system(system: System, only: Sequence[str], sizes: Sizes) -> AsyncIterator[Sequence[Figure]]:
    return measures.measure(system, only=only, plan=measures.QUICK if sizes.quick else measures.FULL)


def _fairness(system: System, only: Sequence[str], sizes: Sizes) -> AsyncIterator[Sequence[Figure]]:
    plan = fairness_plan.QUICK if sizes.quick else fairness_plan.FULL
    if sizes.starts is not None:
        plan = fairness_plan.with_starts(plan, sizes.starts)
    if sizes.backlog_jobs is not None:
        plan = replace(plan, backlog_jobs=sizes.backlog_jobs)
    return fairness.measure(system, only=only, plan=plan)


def _scale(system: System, only: Sequence[str], sizes: Sizes) -> AsyncIterator[Sequence[Figure]]:
    plan = scale.QUICK if sizes.quick else scale.FULL
    if sizes.rows is not None:
        plan = replace(plan, rows=sizes.rows)
    return scale.measure(system, only=only, plan=plan)


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "system",
            "the whole path, its latencies and costs, and the machine's limits",
            (Stage(measures.NAMES),),
            _HERE / "baseline.json",
            _system,
        ),
        Suite(
            "fairness",
            "who waits for whom, what limits cost, and whether they hold",
            (
                Stage(tuple(name for name in fairness.SCENARIOS if name not in fairness.ALONE)),
                *(Stage((name,), workers) for name, workers in fairness.ALONE.items()),
            ),
            _HERE / "baseline-fairness.json",
            _fairness,
        ),
        Suite(
            "scale",
            "the same work beside few and many finished rows",
            (Stage(scale.NAMES),),
            _HERE / "baseline-scale.json",
            _scale,
        ),
    )
}
