"""POST /v1/jobs: one job, accepted when its group's transaction has committed.

The hot path: it is called below the web framework, does nothing twice and keeps the payload's bytes as they came.
"""

import re
from datetime import datetime
from uuid import UUID

from barnabas.contract.events import event_time
from barnabas.contract.intake import (
    BODY_BYTES_MAX,
    ReadJob,
    fingerprint,
    read_idempotency_key,
    read_job,
)
from barnabas.contract.jobs import JobView, raw
from barnabas.contract.problems import refused
from barnabas.contract.topics import DEFAULT_QUEUE
from barnabas.errors import BarnabasError
from barnabas.postgres.listings import read_job as read_one_job
from barnabas.postgres.submissions import RateLimitedError, Submission
from barnabas.runtime import metrics
from barnabas_ingest.http_io import (
    Answer,
    Header,
    Receive,
    Scope,
    announced_bytes,
    check_json,
    json_answer,
    read_body,
)
from barnabas_ingest.lane import Parcel
from barnabas_ingest.rates import limited_answer, rate_headers
from barnabas_ingest.resources import Resources

_TRACE = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
DEFAULT_QUEUE_ID = 0
_REPLAYED: Header = (b"idempotent-replayed", b"true")


async def submit_job(resources: Resources, scope: Scope, receive: Receive) -> Answer:
    """Accept one job, or answer with the one that its idempotency key stands for."""
    headers = dict(scope["headers"])
    tenant_id = await resources.credentials.tenant_of(headers)
    check_json(headers)
    announced = announced_bytes(headers, most=BODY_BYTES_MAX)
    with resources.budget.hold(tenant_id, announced) as share:
        body = await read_body(receive, share, announced=announced, most=BODY_BYTES_MAX)
        started = resources.clock.monotonic()
        given = read_job(body)
        key = idempotency_key(headers.get(b"idempotency-key"), given)
        mark = None if key is None else (key, fingerprint(body))
        job = submission(
            tenant_id,
            resources.ids.mint(),
            given,
            type_id=await type_id(resources, given),
            queue_id=DEFAULT_QUEUE_ID if given.queue is None else await queue_id(resources, given.queue),
            trace=trace_of(headers.get(b"traceparent")),
            now=resources.clock.now(),
        )
        if mark is None:
            parcel = Parcel((job,))
            await resources.plain.store(parcel)
        else:
            parcel = Parcel((job,), (mark,))
            await resources.keyed.store(parcel)
        if parcel.failures:
            failure = parcel.failures[0]
            if not isinstance(failure, RateLimitedError):
                raise failure
            _LIMITED.inc()
            return limited_answer(failure)
        if key is not None and (holder := parcel.holders[0]) is not None and not holder.made:
            check_fingerprint(parcel, 0)
            _REPLAYS.inc()
            return await _replay(resources, tenant_id, holder.job_id)
        _ACCEPTED.inc()
        _ACCEPT_SECONDS.observe(resources.clock.monotonic() - started)
        location = (b"location", b"/v1/jobs/%b" % str(job.job_id).encode())
        rate = parcel.rates.get(tenant_id)
        headers_of_rate = () if rate is None else rate_headers(rate)
        return json_answer(202, view_of(job, given, status=parcel.status_of(0)), location, *headers_of_rate)


_ACCEPTED = metrics.submissions.labels("http", "accepted")
_REPLAYS = metrics.submissions.labels("http", "replayed")
_LIMITED = metrics.submissions.labels("http", "limited")
_ACCEPT_SECONDS = metrics.accept_seconds.labels("http")


def submission(
    tenant_id: UUID,
    job_id: UUID,
    given: ReadJob,
    *,
    type_id: int,
    queue_id: int,
    trace: bytes | None,
    now: datetime,
) -> Submission:
    """The row of a job that was read; raises `ProblemError` for a due time too far away."""
    return Submission(
        tenant_id,
        job_id,
        type_id,
        given.priority,
        queue_id,
        given.timeout_ms,
        given.max_attempts,
        None if given.run_at is None and given.delay_seconds is None else given.due_at(now),
        given.payload,
        given.metadata,
        given.retry,
        trace,
        given.ordering_key,
    )


def idempotency_key(header: bytes | None, given: ReadJob) -> str | None:
    """The key from the header or the body; raises `ProblemError` when they differ or the header's is malformed."""
    if header is None:
        return given.idempotency_key
    key = read_idempotency_key(header.decode("latin-1"), pointer="Idempotency-Key")
    if given.idempotency_key is not None and given.idempotency_key != key:
        raise refused("validation_failed", "the header names another key", pointer="/idempotency_key")
    return key


def check_fingerprint(parcel: Parcel, at: int) -> None:
    """Raise `ProblemError` when the key of this job was used for another body."""
    holder, key = parcel.holders[at], parcel.keys[at]
    if holder is not None and key is not None and holder.fingerprint != key[1]:
        raise refused("idempotency_key_reused", "the key belongs to a job with another body")


def trace_of(value: bytes | None) -> bytes | None:
    """A traceparent as it is kept: well-formed, or not at all."""
    return value if value is not None and _TRACE.fullmatch(value) else None


async def type_id(resources: Resources, given: ReadJob) -> int:
    """The number of the job's type."""
    known = resources.types.known_id(given.type)
    return known if known is not None else (await resources.types.ids([given.type]))[given.type]


async def queue_id(resources: Resources, name: str) -> int:
    """The number of a queue, which is made if it is new; raises `ProblemError` and `TooManyQueuesError`."""
    known = resources.queue_maker.known_id(name)
    return known if known is not None else await resources.queue_maker.ensure(name)


def view_of(job: Submission, given: ReadJob, *, status: str) -> JobView:
    """The job as `GET` would show it before anything has happened to it."""
    return JobView(
        id=job.job_id,
        type=given.type,
        status=status,
        priority=job.priority,
        queue=given.queue or DEFAULT_QUEUE,
        attempt=0,
        max_attempts=job.max_attempts,
        created_at=event_time(job.job_id),
        started_at=None,
        finished_at=None,
        run_at=job.due_at,
        result=raw(None),
        error=raw(None),
        metadata=raw(job.metadata),
        ordering_key=job.ordering_key,
    )


async def _replay(resources: Resources, tenant_id: UUID, job_id: UUID) -> Answer:
    found = await read_one_job(resources.api, tenant_id, job_id)
    if found is None:
        raise BarnabasError("an idempotency key stands for a job that isn't there")
    return json_answer(200, found.view, (b"location", b"/v1/jobs/%b" % str(job_id).encode()), _REPLAYED)
