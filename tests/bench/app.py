"""The handler that latencies are measured with: it says when it started."""

import time
from typing import Any

from barnabas.sdk import App

app = App("bench")


@app.handler("stamp")
async def stamp(payload: Any) -> dict[str, float]:
    """When the caller sent the job, and when this line ran, by the same machine's clock."""
    return {"sent": payload["sent"], "started": time.time()}
