"""Starts a supervisor: in this process, or in one of its own that goes on when the command returns.

A detached supervisor gets its options through its standard input, because they may hold a password, and reports through
its standard output until it is ready; from then on it writes to its log only.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import structlog

from barnabas.errors import BarnabasError
from barnabas_local.errors import LocalStackError
from barnabas_local.paths import Home
from barnabas_local.processes import rotate
from barnabas_local.services import ServiceProcess, plan_services
from barnabas_local.stack_file import Stack, read_stack
from barnabas_local.supervisor import SUPERVISOR, Options, held, supervise

_OTHER_READY_SECONDS = 120.0
_POLL_SECONDS = 0.2


def run_here(
    options: Options,
    *,
    say: Callable[[str], None],
    ready: Callable[[Stack], None],
    plan: Callable[..., list[ServiceProcess]] = plan_services,
    detached: bool = False,
) -> bool:
    """Run the stack until SIGTERM or SIGINT; False at once if one runs in this directory already.

    A detached one lets go of its standard streams: what Python itself has to say goes to the supervisor's log.
    """
    with held(options.home) as ours:
        if ours:
            log = options.home.log(SUPERVISOR)
            rotate(log)
            if detached:
                _let_go_of_streams(log)
            asyncio.run(_until_signalled(options, say=_also_to(log, say), ready=ready, plan=plan))
        return ours


def run_detached(options: Options, *, say: Callable[[str], None]) -> Stack | None:
    """Start a supervisor that outlives this process and return when it is ready; None if one runs here already."""
    with held(options.home) as free:
        if not free:
            return None
    with subprocess.Popen(
        [sys.executable, "-m", "barnabas_local.launch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as supervisor:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        settings = asdict(options) | {"home": str(options.home.root)}
        supervisor.stdin.write(json.dumps(settings).encode())
        supervisor.stdin.close()
        for line in supervisor.stdout:
            report = json.loads(line)
            if "say" in report:
                say(report["say"])
            elif "failed" in report:
                raise LocalStackError(report["failed"])
            elif report.get("ready"):
                # It goes on without us: Popen's own end must neither wait for it nor complain about it.
                supervisor.returncode = 0
                return read_stack(options.home)
            else:
                return None
    raise LocalStackError(f"the supervisor ended without a word; see {options.home.log(SUPERVISOR)}")


def wait_for_other(home: Home) -> Stack:
    """The stack of the supervisor that holds the directory, once it is ready."""
    deadline = time.monotonic() + _OTHER_READY_SECONDS
    while time.monotonic() < deadline:
        stack = read_stack(home)
        if stack.is_ready:
            return stack
        with held(home) as free:
            if free:
                raise LocalStackError("the stack that was starting here has ended; try again")
        time.sleep(_POLL_SECONDS)
    raise LocalStackError(f"the stack in {home.root} has been starting for {_OTHER_READY_SECONDS:g} s; see its logs")


async def _until_signalled(
    options: Options,
    *,
    say: Callable[[str], None],
    ready: Callable[[Stack], None],
    plan: Callable[..., list[ServiceProcess]],
) -> None:
    # Steps of the product that run in here log as services do; a person wants our own lines, and their warnings.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    await supervise(options, stop=stop, say=say, ready=ready, plan=plan)


def _let_go_of_streams(log: Path) -> None:
    with Path(os.devnull).open("rb") as nowhere, log.open("ab") as output:
        os.dup2(nowhere.fileno(), sys.stdin.fileno())
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())


def _also_to(log: Path, say: Callable[[str], None]) -> Callable[[str], None]:
    """What is said to a person is in the supervisor's log too, with the time."""

    def both(line: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")
        say(line)

    return both


def _detached() -> int:
    """The detached supervisor's own process."""
    settings = json.loads(sys.stdin.read())
    options = Options(**settings | {"home": Home(Path(settings["home"]))})
    options.home.make()
    report = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")

    def tell(**line: object) -> None:
        # Whoever started us may have gone away: that is no reason to stop.
        if not report.closed:
            try:
                report.write(json.dumps(line) + "\n")
                report.flush()
            except BrokenPipeError:
                pass

    def ready(_stack: Stack) -> None:
        tell(ready=True)
        report.close()

    try:
        if not run_here(options, say=lambda line: tell(say=line), ready=ready, detached=True):
            tell(ready=False)
    except BarnabasError as failure:
        sys.stderr.write(f"{failure}\n")
        tell(failed=str(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_detached())
