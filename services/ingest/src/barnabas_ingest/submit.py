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
from barnabas.errors import BarnabasError
from barnabas.postgres.listings import read_job as read_one_job
from barnabas.postgres.submissions import Submission
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
from barnabas_ingest.resources import Resources

_TRACE = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_DEFAULT_QUEUE = 0
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
        job = submission(
            tenant_id,
            resources.ids.mint(),
            given,
            type_id=await type_id(resources, given),
            trace=trace_of(headers.get(b"traceparent")),
            now=resources.clock.now(),
        )
        if key is None:
            parcel = Parcel((job,))
            await resources.plain.store(parcel)
        else:
            parcel = Parcel((job,), ((key, fingerprint(body)),))
            await resources.keyed.store(parcel)
        if parcel.failures:
            raise parcel.failures[0]
        if key is not None and (holder := parcel.holders[0]) is not None and not holder.made:
            check_fingerprint(parcel, 0)
            _REPLAYS.inc()
            return await _replay(resources, tenant_id, holder.job_id)
        _ACCEPTED.inc()
        _ACCEPT_SECONDS.observe(resources.clock.monotonic() - started)
        return json_answer(202, view_of(job, given.type), (b"location", b"/v1/jobs/%b" % str(job.job_id).encode()))


_ACCEPTED = metrics.submissions.labels("http", "accepted")
_REPLAYS = metrics.submissions.labels("http", "replayed")
_ACCEPT_SECONDS = metrics.accept_seconds.labels("http")


def submission(
    tenant_id: UUID,
    job_id: UUID,
    given: ReadJob,
    *,
    type_id: int,
    trace: bytes | None,
    now: datetime,
) -> Submission:
    """The row of a job that was read; raises `ProblemError` for a due time too far away."""
    return Submission(
        tenant_id,
        job_id,
        type_id,
        given.priority,
        _DEFAULT_QUEUE,
        given.timeout_ms,
        given.max_attempts,
        None if given.run_at is None and given.delay_seconds is None else given.due_at(now),
        given.payload,
        given.metadata,
        given.retry,
        trace,
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
    holder = parcel.holders[at]
    if holder is not None and holder.fingerprint != parcel.keys[at][1]:
        raise refused("idempotency_key_reused", "the key belongs to a job with another body")


def trace_of(value: bytes | None) -> bytes | None:
    """A traceparent as it is kept: well-formed, or not at all."""
    return value if value is not None and _TRACE.fullmatch(value) else None


async def type_id(resources: Resources, given: ReadJob) -> int:
    """The number of the job's type."""
    known = resources.types.known_id(given.type)
    return known if known is not None else (await resources.types.ids([given.type]))[given.type]


def view_of(job: Submission, type_name: str) -> JobView:
    """The job as `GET` would show it before anything has happened to it."""
    return JobView(
        id=job.job_id,
        type=type_name,
        status="queued" if job.due_at is None else "scheduled",
        priority=job.priority,
        queue="default",
        attempt=0,
        max_attempts=job.max_attempts,
        created_at=event_time(job.job_id),
        started_at=None,
        finished_at=None,
        run_at=job.due_at,
        result=raw(None),
        error=raw(None),
        metadata=raw(job.metadata),
    )


async def _replay(resources: Resources, tenant_id: UUID, job_id: UUID) -> Answer:
    found = await read_one_job(resources.api, tenant_id, job_id)
    if found is None:
        raise BarnabasError("an idempotency key stands for a job that isn't there")
    return json_answer(200, found.view, (b"location", b"/v1/jobs/%b" % str(job_id).encode()), _REPLAYED)
