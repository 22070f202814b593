"""Handlers for tests of the worker, each showing one way in which an attempt can go."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

from pydantic import BaseModel

from barnabas.sdk import App, Context, PermanentError, RetryableError, Snooze

app = App("tests")

gates: dict[str, threading.Event] = {}
"""Events that sync handlers of this very process wait for, by name."""
started: dict[str, int] = {}
"""How often a job's handler was entered in this process, by job id."""


class Add(BaseModel):
    """Two numbers."""

    a: int
    b: int


@app.handler("add")
def add(payload: Add) -> int:
    return payload.a + payload.b


@app.handler("count")
async def count(payload: object, ctx: Context) -> int:
    started[str(ctx.job_id)] = started.get(str(ctx.job_id), 0) + 1
    return started[str(ctx.job_id)]


@app.handler("wait_for_ever", timeout=600)
async def wait_for_ever(payload: object, ctx: Context) -> None:
    started[str(ctx.job_id)] = started.get(str(ctx.job_id), 0) + 1
    await asyncio.Event().wait()


@app.handler("report", timeout=600)
async def report(payload: object, ctx: Context) -> None:
    ctx.progress(40, "page 4")
    await asyncio.Event().wait()


@app.handler("block_thread", timeout=0.3, max_attempts=1)
def block_thread(payload: dict[str, str]) -> None:
    gates[payload["gate"]].wait()


@app.handler("slow", timeout=0.2, max_attempts=1)
async def slow(payload: object) -> None:
    await asyncio.Event().wait()


@app.handler("say_where", timeout=600)
def say_where(directory: str, ctx: Context) -> None:
    """Writes down in which process it runs, and goes on until it may end."""
    written = Path(directory, f"{ctx.job_id}.new")
    written.write_text(str(os.getpid()))
    written.rename(Path(directory, str(ctx.job_id)))
    while not Path(directory, "go").exists():
        time.sleep(0.02)


@app.handler("later")
async def later(payload: object, ctx: Context) -> str:
    if ctx.attempt == 1:
        raise RetryableError("not now", retry_after=0.5)
    return "done"


@app.handler("snooze")
async def snooze(payload: object, ctx: Context) -> str:
    job = str(ctx.job_id)
    started[job] = started.get(job, 0) + 1
    if started[job] == 1:
        raise Snooze(1.5)
    return f"attempt {ctx.attempt}"


@app.handler("never")
async def never(payload: object) -> None:
    raise PermanentError("no", code="never_works")


@app.handler("die", isolate="process")
def die(payload: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.handler("snooze_then_wait", timeout=600)
async def snooze_then_wait(payload: dict[str, str], ctx: Context) -> None:
    job = str(ctx.job_id)
    started[job] = started.get(job, 0) + 1
    if started[job] == 1:
        await asyncio.to_thread(gates[payload["gate"]].wait)
        raise Snooze(0.1)
    await asyncio.Event().wait()
