"""What one attempt costs in the SDK: microseconds of CPU from payload bytes to outcome, inside one long-lived slot.

Run with `python -m tests.bench.sdk_attempt`. Each figure is the best of five rounds; the machine's noise only adds.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import msgspec
from pydantic import BaseModel

from barnabas.domain.attempts import Succeeded
from barnabas.sdk.app import App, Handler
from barnabas.sdk.context import Context
from barnabas.sdk.running import Attempt, run_attempt
from barnabas.sdk.threads import HandlerThreads

ROUNDS = 5


class Payload(BaseModel):
    """A payload of 1 KB with a few fields."""

    customer: str
    amount: float
    note: str


app = App("bench")


@app.handler("echo")
async def echo(payload: Any) -> Any:
    """Return the payload."""
    return payload


@app.handler("model")
async def model(payload: Payload) -> Payload:
    """Return the checked payload."""
    return payload


@app.handler("sync")
def sync(payload: Any) -> Any:
    """Return the payload, from a thread."""
    return payload


RAW = msgspec.json.encode({"customer": "c-1", "amount": 12.5, "note": "x" * 960})
SMALL = b'{"n":1}'


async def main() -> None:
    """Measure and print."""
    threads = HandlerThreads(4)

    def context(handler: Handler) -> Context:
        return Context(
            job_id=JOB,
            tenant_id=JOB,
            job_type=handler.type,
            attempt=1,
            max_attempts=4,
            deadline_monotonic=time.monotonic() + 30,
        )

    async def slot(handler: Handler, raw: bytes, times: int) -> None:
        for _ in range(times):
            run = await Attempt(handler, raw, context(handler), threads=threads).run()
            assert isinstance(run.outcome, Succeeded), run

    async def timed(handler: Handler, raw: bytes, times: int) -> None:
        for _ in range(times):
            await run_attempt(handler, raw, context(handler), threads=threads)

    async def tasks(handler: Handler, raw: bytes, times: int) -> None:
        for _ in range(times):
            async with asyncio.timeout(30):
                await asyncio.create_task(Attempt(handler, raw, context(handler), threads=threads).run())

    async def measure(name: str, work: Callable[[Handler, bytes, int], Awaitable[None]], kind: str, raw: bytes) -> None:
        handler = app.handlers[kind]
        times = 500 if kind == "sync" else 5000
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            await work(handler, raw, times)
            best = min(best, time.process_time() - started)
        print(f"{name:<52} {best / times * 1e6:8.2f} us")

    await measure("echo, 7 bytes", slot, "echo", SMALL)
    await measure("echo, 1 KB", slot, "echo", RAW)
    await measure("pydantic model in and out, 1 KB", slot, "model", RAW)
    await measure("echo, 1 KB, with its own timer (run_attempt)", timed, "echo", RAW)
    await measure("echo, 1 KB, a task and a time-out for each", tasks, "echo", RAW)
    await measure("echo in a thread, 1 KB", slot, "sync", RAW)
    threads.shutdown()


JOB = uuid4()

if __name__ == "__main__":
    asyncio.run(main())
