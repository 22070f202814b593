"""Crash points do nothing unless somebody asked for them."""

from collections.abc import Iterator

import pytest

from barnabas.runtime import crash_points
from barnabas.runtime.crash_points import CrashPoint, reach


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """The module's state is the process': nothing may be left of it."""
    crash_points.disarm()
    yield
    crash_points.disarm()


def test_a_point_that_nobody_armed_has_no_effect() -> None:
    reach(CrashPoint.INGEST_AFTER_STORE)


def test_whoever_armed_is_called_with_each_point_in_turn() -> None:
    seen: list[CrashPoint] = []
    crash_points.arm(seen.append)

    reach(CrashPoint.WORKER_AFTER_CLAIM)
    reach(CrashPoint.WORKER_AFTER_FINISH)

    assert seen == ["worker.after_claim", "worker.after_finish"]


def test_after_the_disarming_nobody_is_called() -> None:
    seen: list[CrashPoint] = []
    crash_points.arm(seen.append)
    crash_points.disarm()

    reach(CrashPoint.WORKER_AFTER_CLAIM)

    assert seen == []


def test_a_point_is_its_name_and_has_its_meaning() -> None:
    point = CrashPoint("timers.after_take")

    assert point is CrashPoint.TIMERS_AFTER_TAKE
    assert f"{point}" == "timers.after_take"
    assert point.meaning == "due timers are taken and committed, and Kafka hasn't been told"
