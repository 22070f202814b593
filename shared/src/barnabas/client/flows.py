"""What takes more than one request, without a network: trying again, waiting for a job, cutting a batch.

A flow is a generator of steps; a client carries each step out and sends its result back in. So the blocking and the
async client differ in how they send and sleep, and in nothing else.
"""

import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

import msgspec

from barnabas.client import calls
from barnabas.client.calls import Answer, Call
from barnabas.client.errors import (
    ApiUnreachableError,
    JobNotEndedError,
    RejectedProblemError,
    TransientProblemError,
    UnreadableAnswerError,
)
from barnabas.client.models import Job, NewJob, Problem, Verdict
from barnabas.errors import TransientError

T = TypeVar("T")

# One request of a wait is held by the server for this long; proxies often give up on silence after 30 s.
_HOLD_SECONDS = 20.0
# A server that answers a wait sooner than this is busy or going down, and must not be asked in a tight loop.
_ASK_AGAIN_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The connection failed; `was_sent` unless the request certainly never reached the server."""

    reason: str
    was_sent: bool


@dataclass(frozen=True, slots=True)
class Rest:
    """A step: sleep so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A call's answer, read."""

    value: T


Flow: TypeAlias = Generator["Call[Any] | Rest", Any, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a call is tried again: full jitter over a capped exponential, `Retry-After` as a floor.

    A wait that would lead beyond `wait_seconds_max` isn't begun. `tries_max` 1 means never again.
    """

    tries_max: int = 5
    base_seconds: float = 0.2
    cap_seconds: float = 10.0
    wait_seconds_max: float = 60.0


class Tries:
    """The tries of one call. Raises the error when there is no use, or no safety, in another one."""

    __slots__ = ("_call", "_retries", "_tries", "_waited_seconds")

    def __init__(self, call: Call[Any], retries: Retries) -> None:
        self._call = call
        self._retries = retries
        self._tries = 0
        self._waited_seconds = 0.0

    def judge(self, answer: Answer | NoAnswer, *, jitter: float) -> Done[Any] | Rest:
        """What to do now: be done, or rest and send the same again. `jitter` is uniform in [0, 1)."""
        self._tries += 1
        if isinstance(answer, NoAnswer):
            return self._again(
                ApiUnreachableError(answer.reason),
                is_safe=self._call.is_repeatable or not answer.was_sent,
                jitter=jitter,
            )
        if 200 <= answer.status < 300:
            try:
                return Done(self._call.read(answer))
            except msgspec.DecodeError as error:
                raise UnreadableAnswerError(f"{self._call.method} {self._call.path}: {error}") from error
        problem = read_problem(answer)
        wait = _retry_after_seconds(answer)
        if answer.status == 429:
            # Refused before anything was done.
            return self._again(TransientProblemError(problem, retry_after_seconds=wait), is_safe=True, jitter=jitter)
        if answer.status in (502, 503, 504) or problem.retryable:
            is_safe = self._call.is_repeatable and answer.status != 500
            return self._again(TransientProblemError(problem, retry_after_seconds=wait), is_safe=is_safe, jitter=jitter)
        raise RejectedProblemError(problem)

    def _again(self, error: TransientError, *, is_safe: bool, jitter: float) -> Rest:
        retries = self._retries
        if not is_safe or self._tries >= retries.tries_max:
            raise error
        seconds = jitter * min(retries.cap_seconds, retries.base_seconds * 2.0 ** (self._tries - 1))
        if isinstance(error, TransientProblemError) and error.retry_after_seconds is not None:
            seconds = max(seconds, error.retry_after_seconds)
        self._waited_seconds += seconds
        if self._waited_seconds > retries.wait_seconds_max:
            raise error
        return Rest(seconds)


def wait(job_id: UUID | str, *, timeout: float = 60.0) -> Flow[Job]:
    """The job, once it has ended in whatever way; raises `JobNotEndedError` after `timeout` seconds."""
    until = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        job: Job = yield calls.get(job_id, wait=round(min(_HOLD_SECONDS, max(0.0, until - asked)), 3))
        now = time.monotonic()
        if job.is_terminal:
            return job
        if now >= until:
            raise JobNotEndedError(job, timeout)
        if now - asked < _ASK_AGAIN_SECONDS:
            yield Rest(min(_ASK_AGAIN_SECONDS, until - now))


def submit_batch(jobs: Iterable[NewJob | Mapping[str, Any]]) -> Flow[list[Verdict]]:
    """Submit many jobs; one verdict for each, in order. A bad one harms no other.

    Requests are cut at 10,000 jobs and 15 MiB. One whose jobs all have idempotency keys is repeated when its answer got
    lost. When a request fails for good the error is raised, and what earlier requests submitted stays submitted.
    """
    verdicts: list[Verdict] = []
    part: list[bytes] = []
    size = 0
    are_keyed = True
    for job in jobs:
        document = calls.new_job(job)
        if part and (len(part) >= calls.BATCH_JOBS_MAX or size + len(document) > calls.BATCH_BYTES_MAX):
            verdicts += yield calls.submit_some(part, is_repeatable=are_keyed)
            part, size, are_keyed = [], 0, True
        part.append(document)
        size += len(document) + 1
        key = job.idempotency_key if isinstance(job, NewJob) else job.get("idempotency_key")
        are_keyed = are_keyed and key is not None
    if part:
        verdicts += yield calls.submit_some(part, is_repeatable=are_keyed)
    return verdicts


def read_problem(answer: Answer) -> Problem:
    """The problem document of an answer, or one made of its status where a proxy answered instead."""
    try:
        return _problem_decoder.decode(answer.body)
    except msgspec.DecodeError:
        return Problem(status=answer.status, code=f"http_{answer.status}", title=f"HTTP {answer.status}")


def _retry_after_seconds(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after", "")
    # The API sends seconds; the other form, a date, comes from proxies whose clock need not be ours.
    return float(value) if value.isascii() and value.isdigit() else None


_problem_decoder = msgspec.json.Decoder(Problem)
