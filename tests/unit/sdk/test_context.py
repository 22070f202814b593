"""The context: what a handler reads, and how a stop reaches it."""

import asyncio
import threading
from datetime import UTC, datetime

import pytest
import structlog

from barnabas.sdk import CancelledByRequest
from barnabas.sdk.context import Progress
from tests.unit.sdk.builders import JOB_ID, TENANT_ID, context


def test_the_deadline_is_a_time_and_the_seconds_left_never_fall_below_zero() -> None:
    ahead = (context(seconds=3600).deadline - datetime.now(UTC)).total_seconds()

    assert 3500 < ahead <= 3600
    assert context(seconds=-5).seconds_left == 0


def test_every_log_line_names_the_job() -> None:
    with structlog.testing.capture_logs() as lines:
        context(attempt=2).log.info("scored", points=3)

    assert lines == [
        {
            "event": "scored",
            "points": 3,
            "log_level": "info",
            "job_id": str(JOB_ID),
            "tenant_id": str(TENANT_ID),
            "job_type": "test",
            "attempt": 2,
        }
    ]


def test_the_worker_takes_the_latest_progress_once() -> None:
    ctx = context()
    ctx.progress(10)
    ctx.progress(40, "page 4")

    assert ctx.take_progress() == Progress(40.0, "page 4")
    assert ctx.take_progress() is None

    ctx.progress(40, "page 4")

    assert ctx.take_progress() == Progress(40.0, "page 4")


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
def test_progress_is_a_percentage(percent: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        context().progress(percent)


def test_metadata_is_empty_and_read_only_where_the_job_has_none() -> None:
    assert dict(context().metadata) == {}
    assert context(metadata={"team": "risk"}).metadata["team"] == "risk"


def test_a_stop_is_seen_and_raised() -> None:
    ctx = context()
    ctx.raise_if_cancelled()
    ctx.request_stop()
    ctx.request_stop()

    assert ctx.cancelled
    with pytest.raises(CancelledByRequest):
        ctx.raise_if_cancelled()


async def test_a_stop_from_another_thread_wakes_who_waits_for_it() -> None:
    ctx = context()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = [group.create_task(ctx.wait_cancelled()) for _ in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=ctx.request_stop).start()

    assert all(task.done() for task in waiting)


async def test_waiting_after_the_stop_returns_at_once() -> None:
    ctx = context()
    ctx.request_stop()

    async with asyncio.timeout(60):
        await ctx.wait_cancelled()
