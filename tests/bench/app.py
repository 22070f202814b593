"""The handlers that the benchmark measures with: each does one thing that a real one does, and nothing else."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from barnabas.sdk import App

app = App("bench")

_IO_SECONDS = 0.005
_GATE_SECONDS = 0.1


class _Running:
    """How many runs of a handler are under way in this process."""

    def __init__(self) -> None:
        self.now = 0


_io = _Running()


@app.handler("stamp")
async def stamp(payload: Any) -> dict[str, float]:
    """When the caller sent the job, and when this line ran, by the same machine's clock."""
    return {"sent": payload["sent"], "started": time.time()}


@app.handler("small")
async def small(payload: Any) -> bool:
    """Take a payload of any size and return next to nothing."""
    return payload is not None


@app.handler("hold", timeout=3600)
async def hold(payload: Any) -> None:
    """Occupy a slot for so many seconds, at no cost of CPU."""
    await asyncio.sleep(payload["seconds"])


@app.handler("gate", timeout=3600)
async def gate(payload: Any) -> None:
    """Occupy a slot until a file is there."""
    file = Path(payload["file"])
    # Hundreds of these look: a thread for each look costs twenty times as much.
    while not file.exists():  # noqa: ASYNC240
        await asyncio.sleep(_GATE_SECONDS)


@app.handler("vary", timeout=3600)
async def vary(payload: Any) -> None:
    """The same for half to one and a half times as long: slots that are filled at once aren't all freed at once."""
    await asyncio.sleep(payload["seconds"] * random.uniform(0.5, 1.5))


@app.handler("io")
async def io(payload: Any) -> dict[str, int]:
    """Wait as for a quick answer from elsewhere; how many did so at once when this one began."""
    _io.now += 1
    running = _io.now
    try:
        await asyncio.sleep(_IO_SECONDS)
    finally:
        _io.now -= 1
    return {"running": running}
