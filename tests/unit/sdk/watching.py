"""What a test sees of processes that it hasn't started itself."""

from pathlib import Path

import psutil

from tests.support.eventually import eventually

# A machine that runs many tests at once may take long to start a process.
_PATIENCE_SECONDS = 120.0


async def written(path: Path) -> str:
    """What a handler has written there, once it has."""
    return await eventually(lambda: path.read_text() if path.exists() else "", timeout=_PATIENCE_SECONDS)


def lives(pid: int) -> bool:
    """Whether it runs, and isn't just waiting to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
