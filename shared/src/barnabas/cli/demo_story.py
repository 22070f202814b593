"""The demo's three acts: a job and its webhook, attempts with backoff, a dead letter redriven.

Each fact is read back from the API or from the receiver before it is shown; one that isn't so ends the story with
`FactMissingError`.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from barnabas.cli.demo_receiver import Receiver
from barnabas.cli.demo_stage import Stage
from barnabas.cli.jobs import attempt_line
from barnabas.cli.printing import as_compact
from barnabas.client.api import AsyncClient
from barnabas.client.models import Attempt, DeadLetter, Job
from barnabas.domain.backoff import RetryPolicy
from barnabas.errors import BarnabasError

TITLES = (
    "A job goes in, its result comes out as a signed webhook",
    "A handler fails twice: attempts with backoff, then success",
    "What a handler needs is down: a dead letter, redriven after the repair",
)

_GREETING = {"hello": "world"}
_BACKOFF = RetryPolicy(base_seconds=1.0, factor=2.0, cap_seconds=10.0)
_FAILURES = 2
# The second attempt follows soon: what is shown there is the end.
_SOON = RetryPolicy(base_seconds=0.5, factor=1.0, cap_seconds=1.0)
_ATTEMPTS = 2
# The display is as old as this at the most; the end of a job is answered at once.
_HOLD_SECONDS = 0.2
# A server that answers a wait sooner must not be asked in a tight loop.
_ASK_AGAIN_SECONDS = 0.1


class FactMissingError(BarnabasError):
    """Something that the demo was to show is not so."""

    code = "demo_fact_missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One job of the demo and its webhook."""

    what: str
    job: Job
    webhook_seconds: float
    """From just before the submission to the webhook, both seen from here."""


@dataclass(frozen=True, slots=True)
class _Run:
    job: Job
    attempts: Sequence[Attempt]
    began: float
    """When it was submitted, in monotonic seconds."""


async def tell_story(client: AsyncClient, receiver: Receiver, stage: Stage) -> list[Finding]:
    """Every act, in order; the caller limits the time."""
    stage.open(TITLES)
    stage.begin()
    findings = [await _greet(client, receiver, stage)]
    stage.begin()
    findings.append(await _fail_twice(client, receiver, stage))
    stage.begin()
    findings += await _redrive(client, receiver, stage)
    stage.close()
    return findings


async def _greet(client: AsyncClient, receiver: Receiver, stage: Stage) -> Finding:
    began = time.monotonic()
    submitted = await client.submit("echo", _GREETING, metadata={"demo": True})
    stage.line(f"submitted: echo {as_compact(_GREETING)} -> job {submitted.id}")
    run = await _follow(client, stage, submitted.id, began=began)
    _require(run.job.status == "succeeded" and run.job.result == _GREETING, f"the job ended as {_end(run.job)}")
    stage.line(f"succeeded with its result {as_compact(run.job.result)}")
    return await _finish("echo", run, receiver, stage)


async def _fail_twice(client: AsyncClient, receiver: Receiver, stage: Stage) -> Finding:
    payload = {"times": _FAILURES, "error": "retryable"}
    began = time.monotonic()
    submitted = await client.submit("fail", payload, max_attempts=_FAILURES + 1, retry=_BACKOFF)
    stage.line(f"submitted: fail {as_compact(payload)} -> job {submitted.id}")
    run = await _follow(client, stage, submitted.id, began=began)
    _require(run.job.status == "succeeded", f"the job ended as {_end(run.job)}")
    starts = [each.started_at for each in run.attempts if each.kind == "attempt"]
    _require(len(starts) == _FAILURES + 1, f"there were {len(starts)} attempts instead of {_FAILURES + 1}")
    waits = [(after - before).total_seconds() for before, after in itertools.pairwise(starts) if before and after]
    least = [_BACKOFF.base_seconds * _BACKOFF.factor**n for n in range(_FAILURES)]
    kept = len(waits) == len(least) and all(wait >= floor for wait, floor in zip(waits, least, strict=True))
    _require(kept, f"attempts began {waits} s after each other, not at least {least} s")
    shown = " and ".join(f"{wait:.2f} s" for wait in waits)
    floors = " and ".join(f"{floor:g} s" for floor in least)
    stage.line(f"succeeded on attempt {run.job.attempt}; {shown} between the starts, backoff {floors}")
    return await _finish("fail twice", run, receiver, stage)


async def _redrive(client: AsyncClient, receiver: Receiver, stage: Stage) -> list[Finding]:
    began = time.monotonic()
    submitted = await client.submit("http_request", {"url": receiver.stock_url}, max_attempts=_ATTEMPTS, retry=_SOON)
    stage.line(f"submitted: http_request to a service that answers 503 -> job {submitted.id}")
    failed = await _follow(client, stage, submitted.id, began=began)
    _require(failed.job.status == "failed", f"the job ended as {_end(failed.job)}")
    letter = await _find_letter(client, submitted.id)
    _require(letter is not None, "the failed job is not among the dead letters")
    assert letter is not None, "just required"
    stage.line(f"failed for good: a dead letter ({letter.reason})")
    first = await _finish("service down", failed, receiver, stage, event="job.failed")
    receiver.is_repaired = True
    began = time.monotonic()
    again = await client.retry(submitted.id)
    _require(again.id != submitted.id, "the redrive is not a new job")
    stage.line(f"the service is repaired, the dead letter redriven -> job {again.id}")
    run = await _follow(client, stage, again.id, began=began)
    _require(run.job.redrive_of == submitted.id, "the new job doesn't say of which it is the redrive")
    _require(run.job.status == "succeeded", f"the redriven job ended as {_end(run.job)}")
    _require(await _find_letter(client, submitted.id) is None, "the dead letter is still open")
    stage.line("succeeded; the dead letter is closed")
    return [first, await _finish("redriven", run, receiver, stage)]


async def _follow(client: AsyncClient, stage: Stage, job_id: UUID, *, began: float) -> _Run:
    """Show each attempt as it ends, until the job has; the caller limits the time."""
    told = 0
    while True:
        asked = time.monotonic()
        job = await client.get(job_id, wait=_HOLD_SECONDS)
        items = (await client.attempts(job_id)).items
        for attempt in items[told:]:
            if attempt.outcome == "running":
                break
            stage.line(attempt_line(attempt))
            told += 1
        if job.is_terminal and told == len(items):
            return _Run(job, items, began)
        stage.now(_activity(job, items))
        await asyncio.sleep(max(0.0, _ASK_AGAIN_SECONDS - (time.monotonic() - asked)))


def _activity(job: Job, items: Sequence[Attempt]) -> str:
    due = items[-1].next_at if items else None
    if job.status == "retrying" and due is not None:
        return f"attempt {job.attempt + 1} in {max(0.0, (due - datetime.now(UTC)).total_seconds()):.1f} s"
    return job.status


async def _finish(what: str, run: _Run, receiver: Receiver, stage: Stage, *, event: str = "job.succeeded") -> Finding:
    stage.now("waiting for the webhook")
    webhook = await receiver.webhook(str(run.job.id), event)
    _require(webhook.event["data"].get("status") == run.job.status, "the webhook tells of another end than the API")
    stage.line(f"webhook received, signature verified: {event} (webhook-id {webhook.id})")
    return Finding(what, run.job, webhook.at - run.began)


async def _find_letter(client: AsyncClient, job_id: UUID) -> DeadLetter | None:
    async for letter in client.dlq(kind="jobs", limit=20):
        if letter.id == job_id:
            return letter
        if letter.id < job_id:
            # Newest first, and ids grow with time: it is not further down.
            return None
    return None


def _end(job: Job) -> str:
    return job.status if job.error is None else f"{job.status} ({job.error.code}: {job.error.message})"


def _require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise FactMissingError(otherwise)
