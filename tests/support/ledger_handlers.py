"""Handlers that write each start and each effect to the ledger, so that a checker can count runs without the product.

The app of chaos runs: `--app tests.support.ledger_handlers:app`, with the ledger's directory in `CHAOS_LEDGER`. A
result is the name of the run that made it, which is in its effect too: so a committed result can be told from others.
"""

import asyncio
import functools
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from barnabas.sdk import App, Context, PermanentError, RetryableError, Snooze
from tests.chaos.ledger import LEDGER_VARIABLE, Began, CrashPoint, Effect, Ledger, now, own_ledger

app = App("ledger")

# A handler that is to be interrupted by its deadline; the tests that wait for it have others to wait for too.
_SHORT_SECONDS = 5.0
_MEGABYTE = 1024 * 1024
_PAGE_BYTES = 4096


class Work(BaseModel):
    """How a job's runs go: its first `fails` attempts end in `error`, its first `snoozes` runs are put off."""

    model_config = ConfigDict(extra="forbid")

    key: str
    seconds: float = 0.0
    fails: int = 0
    error: Literal["retryable", "permanent"] = "retryable"
    pad: str = ""
    """Only there to make a payload larger."""


class Trouble(BaseModel):
    """A job that makes trouble in its first `times` runs and then works."""

    model_config = ConfigDict(extra="forbid")

    key: str
    times: int = 1
    seconds: float = 12.0
    """How long a handler hangs."""
    megabytes: int = 64
    """How much a handler allocates."""


class Ran(BaseModel):
    """The result: which run made it."""

    run: str


@app.handler("effect", timeout=60)
async def effect(payload: Work, ctx: Context) -> Ran:
    _began(ctx)
    if payload.seconds:
        await asyncio.sleep(payload.seconds)
    _fail_as_told(payload, ctx)
    return _effect(ctx)


@app.handler("effect.sync", timeout=60)
def effect_sync(payload: Work, ctx: Context) -> Ran:
    return _work_blocking(payload, ctx)


@app.handler("effect.process", timeout=60, isolate="process")
def effect_process(payload: Work, ctx: Context) -> Ran:
    return _work_blocking(payload, ctx)


@app.handler("effect.snooze", timeout=60)
async def effect_snooze(payload: Trouble, ctx: Context) -> Ran | Snooze:
    """Is put off as often as told; a snooze changes no number that a handler sees, so a file beside the ledger counts.

    A run that is killed after it counted is put off once less, which no promise forbids.
    """
    _began(ctx)
    if await asyncio.to_thread(_count_run, ctx) <= payload.times:
        return Snooze(0.2)
    return _effect(ctx)


@app.handler("effect.crash", timeout=60)
async def effect_crash(payload: Trouble, ctx: Context) -> Ran:
    """Takes its worker with it, and everything else that runs there; from its first loss on it runs alone."""
    _began(ctx)
    _crash_as_told(payload, ctx)
    return _effect(ctx)


@app.handler("effect.crash_alone", timeout=60, isolate="process")
def effect_crash_alone(payload: Trouble, ctx: Context) -> Ran:
    """Crashes the interpreter that it has to itself."""
    _began(ctx)
    _crash_as_told(payload, ctx)
    return _effect(ctx)


@app.handler("effect.hang", timeout=_SHORT_SECONDS)
def effect_hang(payload: Trouble, ctx: Context) -> Ran:
    """Hangs in its thread past its time-out: nothing can end it there, and its slot stays taken meanwhile."""
    _began(ctx)
    if ctx.attempt <= payload.times:
        time.sleep(payload.seconds)
        raise RetryableError("it hung until its own end")
    return _effect(ctx)


@app.handler("effect.hang_alone", timeout=_SHORT_SECONDS, isolate="process")
def effect_hang_alone(payload: Trouble, ctx: Context) -> Ran:
    """Hangs past its time-out in a process, which is killed."""
    return effect_hang(payload, ctx)


@app.handler("effect.unserializable", timeout=60)
async def effect_unserializable(payload: Trouble, ctx: Context) -> object:
    """Returns what has no form in JSON: a permanent error, so it has no effect."""
    _began(ctx)
    return object()


@app.handler("effect.allocate", timeout=60, isolate="process")
def effect_allocate(payload: Trouble, ctx: Context) -> Ran:
    """Holds much memory, really touched."""
    _began(ctx)
    held = bytearray(payload.megabytes * _MEGABYTE)
    held[::_PAGE_BYTES] = b"\1" * len(range(0, len(held), _PAGE_BYTES))
    return _effect(ctx)


@functools.cache
def _ledger(pid: int) -> Ledger:
    return own_ledger(Path(os.environ[LEDGER_VARIABLE]), "handlers")


def _began(ctx: Context) -> None:
    pid = os.getpid()
    event = Began(now(), str(ctx.tenant_id), str(ctx.job_id), ctx.attempt, pid=pid, losses=ctx.losses)
    _ledger(pid).write(event)


def _effect(ctx: Context) -> Ran:
    pid, run = os.getpid(), str(uuid.uuid4())
    _ledger(pid).write(
        Effect(
            now(),
            str(ctx.tenant_id),
            str(ctx.job_id),
            ctx.attempt,
            pid=pid,
            losses=ctx.losses,
            result_hash=run,
        )
    )
    return Ran(run=run)


def _work_blocking(payload: Work, ctx: Context) -> Ran:
    _began(ctx)
    if payload.seconds:
        time.sleep(payload.seconds)
        # A thread whose attempt was taken away meanwhile must not pretend to have worked.
        ctx.raise_if_cancelled()
    _fail_as_told(payload, ctx)
    return _effect(ctx)


def _fail_as_told(payload: Work, ctx: Context) -> None:
    if ctx.attempt > payload.fails:
        return
    if payload.error == "permanent":
        raise PermanentError("as it was told", code="told")
    raise RetryableError("as it was told")


def _crash_as_told(payload: Trouble, ctx: Context) -> None:
    if ctx.losses < payload.times:
        pid = os.getpid()
        # It is a fault for all that run in this process, so the ledger has it as one.
        _ledger(pid).write(CrashPoint(now(), "handler", pid))
        os.kill(pid, signal.SIGSEGV)
        time.sleep(60)


def _count_run(ctx: Context) -> int:
    counts = Path(os.environ[LEDGER_VARIABLE]) / "snoozes"
    counts.mkdir(exist_ok=True)
    with (counts / str(ctx.job_id)).open("ab") as file:
        file.write(b".")
        return file.tell()
