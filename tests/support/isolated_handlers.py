"""Handlers in processes of their own, for tests of who may have one."""

import time
from pathlib import Path

from barnabas.sdk import App, Context

app = App("isolated_tests")


@app.handler("hold", isolate="process", timeout=600)
def hold(directory: str, ctx: Context) -> None:
    """Writes down that it runs, behind those that ran before it, and goes on until it may end."""
    with Path(directory, "ran").open("a") as file:
        file.write(f"{ctx.job_id}\n")
    while not Path(directory, f"{ctx.job_id}.end").exists():
        time.sleep(0.02)
