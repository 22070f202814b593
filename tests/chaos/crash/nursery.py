"""A nursery: an interpreter that has imported a service, and forks a process of it for each line that it reads.

`python -m tests.chaos.crash.nursery barnabas_worker.main`. A service takes more than a second to import and some tenths
to start, and a crash run starts a thousand. On standard output stand the pid of each and then its exit code.
"""

import ctypes
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from barnabas.runtime.service import Service, run

_PR_SET_PDEATHSIG = 1


def main(module: str) -> None:
    """One process after the other, until the end of the input."""
    _die_with(os.getppid())
    service: Service[Any, Any] = importlib.import_module(module).SERVICE
    assert threading.active_count() == 1, "a fork would lose the other threads, and keep what they hold"
    for _ in sys.stdin.buffer:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _die_with(parent)
            _serve(service)
        _tell(pid)
        _tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _serve(service: Service[Any, Any]) -> None:
    """Be the service, with its log where the nursery's errors go; never returns."""
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    code = 1
    try:
        code = run(service)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell(number: int) -> None:
    os.write(1, f"{number}\n".encode())


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
