"""The harness's handler: it counts the job, and sleeps where the harness says so."""

import asyncio
from typing import Any

from peerbench import SLEEP, tick  # type: ignore[import-not-found]  # the harness has it on the path

from barnabas.sdk import App

app = App("peer")


@app.handler("job")
async def job(payload: Any) -> None:
    """Counted as it starts, like every peer's."""
    tick(payload)
    if SLEEP:
        await asyncio.sleep(SLEEP)
