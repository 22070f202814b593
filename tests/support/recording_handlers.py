"""Handlers that write down what they do, so that a test can see in which order attempts of many processes started."""

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from barnabas.sdk import App, Context, PermanentError, RetryableError

app = App("recording")

_LOOK_SECONDS = 0.05


class Note(BaseModel):
    """What to write where, and how the attempt goes."""

    file: str
    line: str
    seconds: float = 0.0
    fails: int = 0
    """So many attempts fail first."""
    until: str | None = None
    """It goes on until this file is there."""
    dies_without: str | None = None
    """It fails for good as long as this file isn't there."""


class Nap(BaseModel):
    """How long to hold a place."""

    seconds: float


@app.handler("note", timeout=600)
async def note(payload: Note, ctx: Context) -> None:
    _write(payload.file, payload.line)
    await asyncio.sleep(payload.seconds)
    while payload.until is not None and not await asyncio.to_thread(Path(payload.until).exists):
        await asyncio.sleep(_LOOK_SECONDS)
    if payload.dies_without is not None and not await asyncio.to_thread(Path(payload.dies_without).exists):
        raise PermanentError("as it was told", code="told")
    if ctx.attempt <= payload.fails:
        raise RetryableError("as it was told")


@app.handler("nap", timeout=60)
async def nap(payload: Nap) -> None:
    await asyncio.sleep(payload.seconds)


def _write(file: str, line: str) -> None:
    # One write at the end of the file: what two processes write doesn't mix.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
