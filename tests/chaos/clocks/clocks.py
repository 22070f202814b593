"""Wrong clocks for processes that run: a library that is built on the spot and preloaded, and a shift for each of them.

`env` makes a system a test build. The shift of a process is a number in a file named after it, which the process has
mapped; nothing of the product knows of it. Linux with glibc, and a C compiler, are needed.
"""

import asyncio
import mmap
import platform
import shutil
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_SOURCE = Path(__file__).parent / "shift.c"
_NANOSECONDS = 1_000_000_000
# A drift is many small steps: the clock runs true in between, and never stands still.
_DRIFT_STEP_SECONDS = 0.02


def may_shift() -> bool:
    """Whether clocks can be shifted on this machine."""
    return platform.libc_ver()[0] == "glibc" and shutil.which("cc") is not None


class Clocks:
    """The clocks of all processes that were started with `env`, whoever started them."""

    def __init__(self, directory: Path) -> None:
        """Builds the library below `directory`, which every process may write to."""
        library = directory / "shift.so"
        self._shifts = directory / "shifts"
        self._shifts.mkdir()
        subprocess.run(
            ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True
        )
        self.env = {"LD_PRELOAD": str(library), "CHAOS_CLOCKS": str(self._shifts)}

    def shift(self, pid: int, seconds: float) -> None:
        """From now on the wall clock of this process is ahead of the true one by so much, or behind it."""
        # Written by way of a mapping, as it is read: in one piece.
        with (self._shifts / str(pid)).open("r+b") as file, mmap.mmap(file.fileno(), 8) as mapped:
            struct.pack_into("q", mapped, 0, round(seconds * _NANOSECONDS))

    @asynccontextmanager
    async def drifting(self, pid: int, *rates: float, turn_seconds: float) -> AsyncIterator[None]:
        """Within the block its clock runs at the first rate, then at the next, `turn_seconds` each; true afterwards."""

        async def drift() -> None:
            begin = at = time.monotonic()
            ahead = 0.0
            while True:
                await asyncio.sleep(_DRIFT_STEP_SECONDS)
                now = time.monotonic()
                rate = rates[int((now - begin) / turn_seconds) % len(rates)]
                ahead, at = ahead + (now - at) * (rate - 1.0), now
                self.shift(pid, ahead)

        drifting = asyncio.create_task(drift())
        try:
            yield
        finally:
            drifting.cancel()
            await asyncio.wait([drifting])
            # Here a fault of its own shows: a process without a file, say.
            if not drifting.cancelled():
                drifting.result()
            self.shift(pid, 0.0)
