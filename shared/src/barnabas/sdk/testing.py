"""Running handlers in tests: inline, without any service, in no more time than the handler itself needs.

The payload goes through JSON and the model, and the result through JSON, exactly as in a worker. `drain` lives through
all attempts of a job, with the waits between them computed and not slept.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
from pydantic import BaseModel

from barnabas.domain.attempts import Finish, Outcome, Postpone, Raised, Requeue, Retry, Succeeded, decide
from barnabas.domain.jobs import JobState
from barnabas.sdk.app import App, Handler
from barnabas.sdk.context import Context, Progress
from barnabas.sdk.running import run_attempt
from barnabas.sdk.threads import HandlerThreads

# A handler that snoozes for ever would never drain; a test that needs more rounds asks for them.
_ROUNDS_MAX = 1000
T = TypeVar("T")


class HandlerFailedError(AssertionError):
    """`AttemptResult.value` was asked for, but the attempt did not succeed."""


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How one attempt ended. `at_seconds` is when it began on the virtual clock of `drain`."""

    attempt: int
    outcome: Outcome
    progress: list[Progress] = field(default_factory=list)
    at_seconds: float = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether the handler returned."""
        return isinstance(self.outcome, Succeeded)

    @property
    def error(self) -> Raised | None:
        """What the handler raised, if it did."""
        return self.outcome if isinstance(self.outcome, Raised) else None

    @property
    def value(self) -> Any:
        """The result as JSON tells it; raises `HandlerFailedError` unless the attempt succeeded."""
        if not isinstance(self.outcome, Succeeded):
            raise HandlerFailedError(f"attempt {self.attempt} ended with {self.outcome}")
        return None if self.outcome.result is None else json.loads(self.outcome.result)


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of a job: its end, and every attempt on the way."""

    state: JobState
    attempts: list[AttemptResult]

    @property
    def value(self) -> Any:
        """The result of the last attempt; raises `HandlerFailedError` unless it succeeded."""
        return self.attempts[-1].value

    @property
    def waits_seconds(self) -> list[float]:
        """How long the job waited before each attempt but the first."""
        times = [each.at_seconds for each in self.attempts]
        return [after - before for before, after in itertools.pairwise(times)]


def run(
    app: App,
    job_type: str,
    payload: object = None,
    *,
    attempt: int = 1,
    losses: int = 0,
    metadata: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
) -> AttemptResult:
    """Run one attempt; for sync tests. `payload` is a model, any JSON value, or bytes of JSON."""
    return _blocking(
        run_async(
            app,
            job_type,
            payload,
            attempt=attempt,
            losses=losses,
            metadata=metadata,
            timeout_seconds=timeout_seconds,
        )
    )


async def run_async(
    app: App,
    job_type: str,
    payload: object = None,
    *,
    attempt: int = 1,
    losses: int = 0,
    metadata: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
) -> AttemptResult:
    """Run one attempt on the running loop; for async tests. A handler with `isolate` runs in this process too."""
    handler = _handler(app, job_type)
    reports: list[Progress] = []
    seconds = handler.timeout if timeout_seconds is None else timeout_seconds
    ctx = Context(
        job_id=_JOB_ID,
        tenant_id=_TENANT_ID,
        job_type=job_type,
        attempt=attempt,
        max_attempts=handler.max_attempts,
        deadline_monotonic=time.monotonic() + seconds,
        metadata=metadata,
        losses=losses,
        on_progress=reports.append,
    )
    threads = HandlerThreads(1)
    try:
        done = await run_attempt(handler, _json(payload), ctx, threads=threads, timeout_seconds=seconds)
    finally:
        threads.shutdown()
    return AttemptResult(attempt, done.outcome, reports)


def drain(
    app: App,
    job_type: str,
    payload: object = None,
    *,
    max_attempts: int | None = None,
    jitter: float = 0.5,
    metadata: Mapping[str, Any] | None = None,
) -> JobResult:
    """Run a job to its end, retries and snoozes included, on a virtual clock; for sync tests.

    `jitter` in [0, 1) stands in for chance where the handler's backoff uses it.
    """
    return _blocking(drain_async(app, job_type, payload, max_attempts=max_attempts, jitter=jitter, metadata=metadata))


async def drain_async(
    app: App,
    job_type: str,
    payload: object = None,
    *,
    max_attempts: int | None = None,
    jitter: float = 0.5,
    metadata: Mapping[str, Any] | None = None,
) -> JobResult:
    """Run a job to its end on a virtual clock; for async tests."""
    handler = _handler(app, job_type)
    limit = handler.max_attempts if max_attempts is None else max_attempts
    raw = _json(payload)
    results: list[AttemptResult] = []
    attempt, at = 1, 0.0
    for _ in range(_ROUNDS_MAX):
        one = await run_async(app, job_type, raw, attempt=attempt, metadata=metadata)
        results.append(AttemptResult(attempt, one.outcome, one.progress, at))
        decision = decide(
            one.outcome,
            attempt=attempt,
            max_attempts=limit,
            losses=0,
            policy=handler.retry,
            jitter=jitter,
            cancel_requested=False,
        )
        match decision:
            case Finish(state=state):
                return JobResult(state, results)
            case Retry(delay_seconds=seconds):
                attempt, at = attempt + 1, at + seconds
            case Postpone(delay_seconds=seconds):
                at += seconds
            case Requeue():
                raise AssertionError("nothing in here loses a job or hands it back")
    raise AssertionError(f"job type {job_type!r} did not end within {_ROUNDS_MAX} runs")


def _handler(app: App, job_type: str) -> Handler:
    found = app.handlers.get(job_type)
    if found is None:
        raise LookupError(f"{app!r} has no handler {job_type!r}; it has {sorted(app.handlers)}")
    return found


def _json(payload: object) -> bytes:
    if isinstance(payload, bytes):
        return payload
    return payload.model_dump_json().encode() if isinstance(payload, BaseModel) else msgspec.json.encode(payload)


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    # Inside an async test this still works: the handler gets a loop and a thread of its own.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()


_JOB_ID: UUID = uuid4()
_TENANT_ID: UUID = uuid4()
