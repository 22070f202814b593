"""A run's page says what was to be reached and whether it was, and touches no other suite's part."""

from pathlib import Path

import pytest

from tests.bench.document import compared, merged, new_run, read_json, write_json, write_page
from tests.bench.figures import Figure, once
from tests.bench.suites import SUITES
from tests.bench.targets import TARGETS, Target, target_table

_PAGE = Path(__file__).parents[3] / "docs" / "benchmarks.md"


def test_a_target_is_reached_within_its_bounds_only() -> None:
    both = Target(figure="x", low=147, high=153)

    assert [both.is_reached(value) for value in (146.9, 147, 153, 153.1)] == [False, True, True, False]
    assert both.words("jobs/min") == "147 – 153 jobs/min"
    assert Target(figure="x", low=6000).words("jobs/s") == "≥ 6,000 jobs/s"


def test_a_figure_that_missed_its_target_says_so_and_one_without_a_target_is_left_out() -> None:
    table = target_table(
        "system",
        [once("end_to_end.kafka", "direct Kafka", "jobs/s", 5999.0), once("other", "other", "jobs/s", 1.0)],
    )

    assert "| direct Kafka | ≥ 6,000 jobs/s | 5,999 jobs/s | **no** |" in table
    assert "other" not in table


@pytest.mark.parametrize("suite", list(SUITES))
def test_the_page_has_a_part_for_every_suite_and_a_run_writes_that_alone(suite: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(_PAGE.read_text())
    target = TARGETS[suite][0]
    run = new_run(suite, "command")
    run.figures = [Figure(name=target.figure, about="unmistakable", value=1.0, unit="u")]
    write_page(run, page)
    before, after = _PAGE.read_text().splitlines(), page.read_text().splitlines()
    markers = [line for line in before if line.startswith("<!-- ")]

    assert [line for line in after if line.startswith("<!-- ")] == markers
    assert len(markers) == 2 * (len(SUITES) + 1)
    assert sum("unmistakable" in line for line in after) == 2


def test_a_run_that_was_kept_is_read_back_and_compared(tmp_path: Path) -> None:
    run = new_run("fairness", "command")
    run.figures = [once("a", "about a", "ms", 10.0)]
    write_json(run, tmp_path / "kept.json")
    faster = new_run("fairness", "command")
    faster.figures = [once("a", "about a", "ms", 5.0), once("b", "about b", "ms", 1.0)]
    text = compared(faster, read_json(tmp_path / "kept.json"))

    assert "-50% better" in text
    assert "about b" in text


def test_what_is_measured_again_takes_its_figures_place_and_nothing_elses() -> None:
    run = new_run("fairness", "first")
    run.figures = [once("a", "a", "ms", 1.0), once("b", "b", "ms", 2.0)]
    again = new_run("fairness", "second")
    again.machine = {"system": "4 workers"}
    again.figures = [once("c", "c", "ms", 3.0), once("a", "a", "ms", 4.0)]
    both = merged(run, again)

    assert [(figure.name, figure.value) for figure in both.figures] == [("a", 4.0), ("b", 2.0), ("c", 3.0)]
    assert "first" in both.command
    assert "second" in both.command


def test_every_kept_baseline_can_be_read() -> None:
    kept = [suite.baseline for suite in SUITES.values() if suite.baseline.exists()]

    assert kept
    assert all(read_json(path).figures for path in kept)
