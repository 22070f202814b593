"""The page shows what is kept, and a figure without its bound, or a bound without its figure, is no success."""

from tests.bench.figures import once
from tests.chaos.scenarios import page
from tests.chaos.scenarios.catalogue import SCENARIOS


def test_the_page_shows_the_kept_figures() -> None:
    assert page.block(page.read_kept()) in page.PAGE.read_text()


def test_a_figure_that_was_not_measured_is_missed_like_one_that_falls_short() -> None:
    scenario = SCENARIOS["worker-killed"]
    good = [once(target.figure, "", "", target.high or 0.0) for target in scenario.targets]
    late = [once("worker_killed.again", "", "s", 15.1), *good[1:]]

    assert page.missed(scenario, good) == []
    assert page.missed(scenario, good[1:]) == ["worker_killed.again"]
    assert page.missed(scenario, late) == ["worker_killed.again"]
