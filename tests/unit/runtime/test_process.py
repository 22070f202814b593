"""A real process: signals, exit codes, what it writes."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ENVIRON = {"BARNABAS_KAFKA": "k", "BARNABAS_POSTGRES": "p", "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}


@contextmanager
def process(mode: str, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.runtime.example_process", mode],
        env=ENVIRON | environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def until(event: str, running: "subprocess.Popen[str]") -> dict[str, Any]:
    """The first log line with this event; fails when the process ends without one."""
    assert running.stdout is not None
    for text in running.stdout:
        line: dict[str, Any] = json.loads(text)
        if line["event"] == event:
            return line
    pytest.fail(f"the process ended without {event}")


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_process_and_it_exits_with_zero(number: signal.Signals) -> None:
    with process("good") as running:
        until("service_ready", running)
        running.send_signal(number)
        until("finished_what_it_held", running)

        assert running.wait(60) == 0


def test_a_second_signal_does_not_shorten_the_drain() -> None:
    with process("slow_drain") as running:
        until("service_ready", running)
        running.send_signal(signal.SIGTERM)
        until("stop_requested", running)
        running.send_signal(signal.SIGTERM)
        assert until("stop_requested", running)["again"]
        assert running.stdin is not None
        running.stdin.write("enough\n")
        running.stdin.flush()
        until("finished_what_it_held", running)

        assert running.wait(60) == 0


def test_a_failed_loop_exits_with_one() -> None:
    with process("broken") as running:
        line = until("loop_failed", running)

        assert running.wait(60) == 1
        assert "KeyError" in line["exception"]


def test_bad_settings_exit_with_two_and_say_which_and_why() -> None:
    with process("good", BARNABAS_OPS_PORT="70000", BARNABAS_POSTGRES="") as running:
        out, errors = running.communicate(timeout=60)

    assert running.returncode == 2
    assert out == ""
    assert [line.split(":")[0] for line in errors.splitlines()] == ["barnabas example"] * 2
    assert "BARNABAS_OPS_PORT=70000" in errors
    assert "BARNABAS_POSTGRES is not set" in errors


def test_the_ops_port_answers_while_the_main_loop_stands_still() -> None:
    with process("blocking") as running:
        port = until("ops_port_opened", running)["port"]
        until("standing_still", running)

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert b"barnabas_loop_lag_seconds" in answer.read()
        deadline = time.monotonic() + 60
        # It stands still for longer than the 0.5 s that this example allows itself.
        while (status := status_of(f"http://127.0.0.1:{port}/livez")) == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status == 503


def test_a_thread_that_never_returns_does_not_keep_the_process() -> None:
    with process("stuck_thread") as running:
        until("service_ready", running)
        running.send_signal(signal.SIGTERM)
        until("exit_forced", running)

        assert running.wait(60) == 0
