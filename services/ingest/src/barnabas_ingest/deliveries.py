"""What a tenant asks about its deliveries."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from barnabas.contract.http import DeliveryPage
from barnabas.contract.problems import refused
from barnabas.domain.deliveries import DeliveryState, UnknownDeliveryStateError
from barnabas.postgres.listings import list_deliveries
from barnabas_ingest.jobs import delivery_view
from barnabas_ingest.routes import LIMIT, Cursor, Limit, Res, TenantId, next_cursor, read_cursor, respond

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"])


@router.get("", operation_id="list_deliveries")
async def get_deliveries(
    resources: Res,
    tenant_id: TenantId,
    status: Annotated[str | None, Query(description="One state, or several with commas.")] = None,
    endpoint_id: UUID | None = None,
    job_id: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = LIMIT,
) -> Response:
    """A page of deliveries, newest first."""
    rows = await list_deliveries(
        resources.listings,
        tenant_id,
        states=_states(status),
        endpoint_id=endpoint_id,
        job_id=job_id,
        before=read_cursor(cursor),
        limit=limit,
    )
    cursor = next_cursor([row.delivery_id for row in rows], is_full=len(rows) == limit)
    return respond(200, DeliveryPage([delivery_view(row) for row in rows], cursor))


def _states(status: str | None) -> list[int] | None:
    if status is None:
        return None
    try:
        return [DeliveryState.from_label(label) for label in status.split(",")]
    except UnknownDeliveryStateError as error:
        raise refused("validation_failed", str(error), pointer="status") from None
