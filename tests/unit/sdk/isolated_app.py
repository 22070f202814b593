"""Handlers for the tests of child processes: loaded by name in the child."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from barnabas.sdk import App, Context, PermanentError

app = App("isolated")


@app.handler("pid", isolate="process")
def pid(payload: Any) -> int:
    return os.getpid()


@app.handler("seen", isolate="process")
async def seen(payload: dict[str, int], ctx: Context) -> dict[str, Any]:
    return {
        "payload": payload,
        "attempt": ctx.attempt,
        "losses": ctx.losses,
        "metadata": ctx.metadata,
        "job": str(ctx.job_id),
    }


@app.handler("progress", isolate="process")
def progress(payload: Any, ctx: Context) -> None:
    for percent in range(101):
        ctx.progress(percent, f"step {percent}")


@app.handler("permanent", isolate="process")
def permanent(payload: Any) -> None:
    raise PermanentError("no", code="never")


@app.handler("die", isolate="process")
def die(payload: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.handler("exit", isolate="process")
def leave(payload: Any) -> None:
    os._exit(3)


@app.handler("hog", isolate="process")
def hog(payload: int) -> int:
    return len(b"x" * payload)


@app.handler("noisy", isolate="process")
def noisy(payload: Any) -> str:
    print("this is the handler's own output")
    return "said"


@app.handler("stubborn", isolate="process")
def stubborn(path: str) -> None:
    """Says that it runs, and lives on through everything but SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(0.05)


@app.handler("tidy", isolate="process")
def tidy(path: str) -> None:
    try:
        Path(path).write_text("running")
        while True:
            time.sleep(0.05)
    finally:
        Path(path).write_text("cleaned up")


@app.handler("tidy_async", isolate="process")
async def tidy_async(path: str) -> None:
    try:
        Path(path).write_text("running")  # noqa: ASYNC240 - the test waits for it
        await asyncio.sleep(600)
    finally:
        Path(path).write_text("cleaned up")  # noqa: ASYNC240 - the test reads it


@app.handler("obeys", isolate="process")
def obeys(path: str, ctx: Context) -> None:
    Path(path).write_text("running")
    while True:
        ctx.raise_if_cancelled()
        time.sleep(0.005)


@app.handler("family", isolate="process")
def family(path: str) -> None:
    """Starts a process of its own and hangs."""
    # It ignores SIGTERM, and holds on to whatever it has inherited.
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    started = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, close_fds=False)
    assert started.stdout is not None
    started.stdout.readline()
    Path(path).write_text(str(started.pid))
    time.sleep(600)


@app.handler("holds", isolate="process")
def holds(path: str) -> None:
    """Lets no other thread of its process run."""
    Path(path).write_text(str(os.getpid()))
    re.match(r"(a+)+$", "a" * 64 + "b")
