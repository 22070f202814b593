"""The dead letters of a tenant: listed, and redriven by id."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request
from msgspec import UNSET
from starlette.responses import Response

from barnabas.contract.http import (
    DeadLetterPage,
    DeadLetterView,
    DlqKind,
    RedriveAnswer,
    RedriveInput,
)
from barnabas.contract.problems import refused
from barnabas.postgres.listings import NEWEST, list_dead_deliveries, list_dead_jobs
from barnabas_ingest.jobs import delivery_view
from barnabas_ingest.redrive import due_times, try_redrive_delivery, try_redrive_job
from barnabas_ingest.routes import (
    LIMIT,
    Cursor,
    Limit,
    NameFilter,
    Res,
    TenantId,
    next_cursor,
    read_cursor,
    read_input,
    read_moment,
    respond,
)

router = APIRouter(prefix="/v1/dlq", tags=["dead letters"])


@router.get("", operation_id="list_dead_letters")
async def get_dead_letters(
    resources: Res,
    tenant_id: TenantId,
    kind: DlqKind = "jobs",
    type: NameFilter = None,  # noqa: A002 - the parameter's public name
    reason: NameFilter = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    cursor: Cursor = None,
    limit: Limit = LIMIT,
) -> Response:
    """A page of open dead letters, newest first."""
    found = await _find(
        resources,
        tenant_id,
        kind,
        type_name=type,
        reason=reason,
        created_after=read_moment("created_after", created_after),
        created_before=read_moment("created_before", created_before),
        ids=None,
        before=read_cursor(cursor),
        limit=limit,
    )
    cursor = next_cursor([one.id for one in found], is_full=len(found) == limit)
    return respond(200, DeadLetterPage(found, cursor))


@router.post("/redrive", operation_id="redrive_dead_letters")
async def post_redrive(request: Request, resources: Res, tenant_id: TenantId) -> Response:
    """Send dead letters round again by id, at a rate if one is given; what is closed already is not matched."""
    given = await read_input(request, RedriveInput)
    ids = list(dict.fromkeys(given.filter.ids))
    found = await _find(
        resources,
        tenant_id,
        given.filter.kind,
        type_name=None,
        reason=None,
        created_after=None,
        created_before=None,
        ids=ids,
        before=NEWEST,
        limit=len(ids),
    )
    if given.dry_run or not found:
        return respond(200, RedriveAnswer(matched=len(found), done=0, dry_run=given.dry_run))
    due: Sequence[datetime | None] = [None] * len(found)
    if given.rate is not None:
        due = await due_times(resources, tenant_id, given.filter.kind, count=len(found), rate=given.rate)
    done = 0
    for one, due_at in zip(found, due, strict=True):
        if one.kind == "jobs":
            answer: str = (await try_redrive_job(resources, tenant_id, one.id, due_at=due_at)).answer
        else:
            answer = (await try_redrive_delivery(resources, tenant_id, one.id, due_at=due_at)).answer
        done += answer == "redriven"
    last_at = due[-1] if done else None
    return respond(
        200,
        RedriveAnswer(matched=len(found), done=done, dry_run=False, last_at=UNSET if last_at is None else last_at),
    )


async def _find(
    resources: Res,
    tenant_id: UUID,
    kind: DlqKind,
    *,
    type_name: str | None,
    reason: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    ids: list[UUID] | None,
    before: UUID,
    limit: int,
) -> list[DeadLetterView]:
    # What is redriven next must be seen as it is now: no replica here.
    database = resources.api
    if kind == "jobs":
        jobs = await list_dead_jobs(
            database,
            tenant_id,
            type_name=type_name,
            reason=reason,
            created_after=created_after,
            created_before=created_before,
            ids=ids,
            before=before,
            limit=limit,
        )
        return [
            DeadLetterView(kind="jobs", id=one.job_id, reason=one.reason, at=one.at, job=one.job.view)
            if one.job is not None
            else DeadLetterView(kind="jobs", id=one.job_id, reason=one.reason, at=one.at)
            for one in jobs
        ]
    if type_name is not None:
        raise refused("validation_failed", "only jobs have a type", pointer="type")
    deliveries = await list_dead_deliveries(
        database,
        tenant_id,
        reason=reason,
        created_after=created_after,
        created_before=created_before,
        ids=ids,
        before=before,
        limit=limit,
    )
    return [
        DeadLetterView(
            kind="deliveries", id=one.delivery_id, reason=one.reason, at=one.at, delivery=delivery_view(one.delivery)
        )
        for one in deliveries
    ]
