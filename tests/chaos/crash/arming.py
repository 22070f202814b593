"""Which crash point is armed, as files: the runner lays one down for each death, and whoever takes it away dies of it.

A file costs no restart to arm, is taken by one process only, and is gone afterwards: the next process goes on.
"""

import os
import signal
from collections import Counter
from pathlib import Path

from barnabas.runtime.crash_points import CrashPoint
from tests.chaos.ledger import CrashPoint as Crashed
from tests.chaos.ledger import now, own_ledger

ARMED_VARIABLE = "CHAOS_CRASH_POINTS"
"""The environment variable that tells a process of a test build the directory of these files."""


class Arming:
    """The runner's side. Deaths are numbered, so that a process counts each arming by itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._number = 0
        directory.mkdir(parents=True, exist_ok=True)

    def arm(self, point: CrashPoint, *, after: int = 0) -> None:
        """One death at this point, once a process has passed it `after` times."""
        self._number += 1
        # Nobody may read half of it.
        unnamed = self.directory / f".{point}"
        unnamed.write_text(f"{self._number} {after}")
        unnamed.rename(self.directory / point)

    def is_armed(self, point: CrashPoint) -> bool:
        """Whether nobody has died of it yet."""
        return (self.directory / point).exists()

    def disarm(self, point: CrashPoint) -> None:
        """Nobody shall die of it."""
        (self.directory / point).unlink(missing_ok=True)


class Deaths:
    """The process' side: to be armed with `crash_points.arm`."""

    def __init__(self, directory: Path, ledger: Path) -> None:
        self._directory = directory
        self._ledger = ledger
        self._passed: Counter[tuple[str, int]] = Counter()

    def __call__(self, point: CrashPoint) -> None:
        """Die here if it is armed and its time has come."""
        armed = self._directory / point
        try:
            number, after = (int(word) for word in armed.read_text().split())
        except FileNotFoundError:
            return
        self._passed[point, number] += 1
        if self._passed[point, number] <= after:
            return
        try:
            armed.unlink()
        except FileNotFoundError:
            return  # another process was faster
        own_ledger(self._ledger, "crash").write(Crashed(now(), str(point), os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
