"""What a tenant asks about its jobs: one, a page of them, a timeline; and what it does to them: cancel, retry."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from msgspec import UNSET
from starlette.responses import Response

from barnabas.contract.http import WAIT_SECONDS_MAX, AttemptView, CallView, DeliveryView, JobPage, TimelineAnswer
from barnabas.contract.jobs import raw
from barnabas.contract.problems import refused
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.deliveries import DeliveryState
from barnabas.domain.ids import uuid7
from barnabas.domain.jobs import TERMINAL, JobState, UnknownStateError, state_from_label
from barnabas.postgres.jobs import StoredJob
from barnabas.postgres.listings import (
    OLDEST,
    AttemptRow,
    DeliveryAttemptRow,
    DeliveryRow,
    list_jobs,
    read_job,
    read_timeline,
)
from barnabas_ingest.batch import submit_batch
from barnabas_ingest.cancel import cancel_job
from barnabas_ingest.http_io import as_response
from barnabas_ingest.redrive import redrive_failed_job
from barnabas_ingest.routes import (
    LIMIT,
    Cursor,
    Limit,
    NameFilter,
    Res,
    TenantId,
    next_cursor,
    read_cursor,
    read_id,
    read_moment,
    respond,
)
from barnabas_ingest.submit import submit_job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Wait = Annotated[
    float,
    Query(ge=0, le=WAIT_SECONDS_MAX, allow_inf_nan=False, description="Hold the answer, or until the end."),
]


@router.post("", operation_id="submit_job")
async def post_job(request: Request, resources: Res) -> Response:
    """Submit a job: 202 when it is stored."""
    # The front answers this route itself; it stands here for the description, and for whoever mounts the app bare.
    return as_response(await submit_job(resources, request.scope, request.receive))


@router.post("/batch", operation_id="submit_batch")
async def post_batch(request: Request, resources: Res) -> Response:
    """Submit up to 10,000 jobs, as a JSON array or as lines: one verdict each, in order."""
    return as_response(await submit_batch(resources, request.scope, request.receive))


@router.get("", operation_id="list_jobs")
async def get_jobs(
    resources: Res,
    tenant_id: TenantId,
    status: Annotated[str | None, Query(description="One state, or several with commas.")] = None,
    type: NameFilter = None,  # noqa: A002 - the parameter's public name
    queue: NameFilter = None,
    created_after: datetime | None = None,
    cursor: Cursor = None,
    limit: Limit = LIMIT,
) -> Response:
    """A page of jobs, newest first."""
    found = await list_jobs(
        resources.listings,
        tenant_id,
        states=_states(status),
        type_name=type,
        queue=queue,
        since=_since(created_after),
        before=read_cursor(cursor),
        limit=limit,
    )
    behind = [] if found.last_id is None else [found.last_id]
    return respond(200, JobPage([job.view for job in found.jobs], next_cursor(behind, is_full=True)))


@router.get("/{job_id}", operation_id="get_job")
async def get_job(resources: Res, tenant_id: TenantId, job_id: str, wait: Wait = 0.0) -> Response:
    """A job with its result or error; with `wait` as soon as it has ended."""
    key = read_id(job_id)
    job = await _job(resources, tenant_id, key)
    if wait and job.state not in TERMINAL:
        await resources.waits.ended(tenant_id, key, seconds=wait)
        job = await _job(resources, tenant_id, key)
    return respond(200, job.view)


@router.get("/{job_id}/attempts", operation_id="list_attempts")
async def get_attempts(resources: Res, tenant_id: TenantId, job_id: str) -> Response:
    """What happened to a job: its attempts, losses and hand-backs, oldest first, and every delivery of its end."""
    timeline = await read_timeline(resources.api, tenant_id, read_id(job_id))
    if timeline is None:
        raise refused("not_found")
    calls: dict[UUID, list[DeliveryAttemptRow]] = {}
    for call in timeline.delivery_attempts:
        calls.setdefault(call.endpoint_id, []).append(call)
    deliveries = [delivery_view(row, calls.get(row.endpoint_id, [])) for row in timeline.deliveries]
    return respond(200, TimelineAnswer([_attempt_view(row) for row in timeline.attempts], deliveries))


@router.post("/{job_id}/cancel", operation_id="cancel_job")
async def post_cancel(resources: Res, tenant_id: TenantId, job_id: str) -> Response:
    """End a job that isn't running (200), or ask the one that runs to end (202)."""
    key = read_id(job_id)
    answer = await cancel_job(resources, tenant_id, key)
    job = await _job(resources, tenant_id, key)
    if answer == "absent" and job.state is not JobState.CANCELLED:
        raise refused("job_ended", f"the job has {job.view.status} already")
    return respond(202 if answer == "requested" else 200, job.view)


@router.post("/{job_id}/retry", operation_id="retry_job")
async def post_retry(resources: Res, tenant_id: TenantId, job_id: str) -> Response:
    """Redrive a failed job: a new job with the old payload (202)."""
    new_id = await redrive_failed_job(resources, tenant_id, read_id(job_id))
    job = await _job(resources, tenant_id, new_id)
    return respond(202, job.view, (b"location", b"/v1/jobs/%b" % str(new_id).encode()))


def delivery_view(row: DeliveryRow, calls: list[DeliveryAttemptRow] | None = None) -> DeliveryView:
    """A delivery as it is shown, with its calls where they were read."""
    return DeliveryView(
        id=row.delivery_id,
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        job_id=row.job_id,
        status=DeliveryState(row.state).label,
        attempt=row.attempt,
        created_at=row.created_at,
        due_at=row.due_at,
        finished_at=row.finished_at,
        last_status=row.last_status,
        error=row.error,
        attempts=UNSET if calls is None else [_call_view(call) for call in calls],
    )


def _call_view(call: DeliveryAttemptRow) -> CallView:
    return CallView(
        attempt=call.attempt,
        started_at=call.started_at,
        duration_ms=call.duration_ms,
        status=call.status,
        error=call.error,
    )


async def _job(resources: Res, tenant_id: UUID, job_id: UUID) -> StoredJob:
    job = await read_job(resources.api, tenant_id, job_id)
    if job is None:
        raise refused("not_found")
    return job


def _attempt_view(row: AttemptRow) -> AttemptView:
    kind = AttemptKind(row.kind)
    outcome = kind.label
    if kind is AttemptKind.ATTEMPT:
        outcome = "retried" if row.state is None else row.state.label
    return AttemptView(
        kind=kind.label,  # type: ignore[arg-type]  # the four labels are the four literals
        attempt=row.attempt,
        outcome=outcome,
        worker_id=row.worker_id,
        started_at=row.started_at,
        finished_at=row.finished_at,
        next_at=row.next_at,
        error=raw(row.error),
    )


def _states(status: str | None) -> frozenset[JobState]:
    if status is None:
        return frozenset()
    try:
        return frozenset(state_from_label(label) for label in status.split(","))
    except UnknownStateError as error:
        raise refused("validation_failed", str(error), pointer="status") from None


def _since(created_after: datetime | None) -> UUID:
    """The smallest id that is younger."""
    moment = read_moment("created_after", created_after)
    return OLDEST if moment is None else uuid7(int(moment.timestamp() * 1000) + 1, bytes(10))
