"""A worker that is killed leaves nothing behind: its jobs run elsewhere by then, and must not go on here."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.unit.sdk.watching import lives, written

_FORKED, _UNFORKED = "tests.unit.sdk.isolated_app:app", "tests.unit.sdk.threaded_app:app"


@pytest.mark.parametrize(
    ("app", "job_type"),
    [(_FORKED, "stubborn"), (_FORKED, "family"), (_FORKED, "holds"), (_UNFORKED, "family")],
)
async def test_a_child_does_not_outlive_a_worker_that_was_killed(app: str, job_type: str, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.sdk.killed_worker", app, job_type, str(path), start_new_session=True
    )
    try:
        pid = int(await written(path))
    finally:
        worker.kill()
        await worker.wait()

    try:
        await eventually(lambda: lives(pid), until=lambda alive: not alive)
    finally:
        if lives(pid):
            os.kill(pid, signal.SIGKILL)
