"""What the routes share: who asks, pages, ids from paths, bodies and answers."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from fastapi import Depends, Query, Request
from starlette.responses import Response

from barnabas.contract import json_text
from barnabas.contract.http import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX
from barnabas.contract.intake import BODY_BYTES_MAX, decode
from barnabas.contract.problems import refused
from barnabas.postgres.listings import NEWEST
from barnabas_ingest.http_io import (
    Header,
    announced_bytes,
    as_response,
    check_json,
    json_answer,
    read_body,
)
from barnabas_ingest.resources import Resources

T = TypeVar("T")

# Bodies of these routes are small; the administrator's count for no tenant.
_NOBODY = UUID(int=0)


def resources_of(request: Request) -> Resources:
    """What this process works with."""
    resources: Resources = request.app.state.resources
    return resources


async def tenant_of(request: Request) -> UUID:
    """The tenant behind the request's credential; it comes from nowhere else."""
    return await resources_of(request).credentials.tenant_of(dict(request.headers.raw))


async def check_admin(request: Request) -> None:
    """Only with the admin key."""
    resources_of(request).credentials.check_admin(dict(request.headers.raw))


Res = Annotated[Resources, Depends(resources_of)]
TenantId = Annotated[UUID, Depends(tenant_of)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAX, description="How many at most.")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
# Postgres has no text with NUL.
NameFilter = Annotated[str | None, Query(max_length=128, pattern=r"^[^\x00]*$")]
LIMIT = PAGE_LIMIT_DEFAULT


async def read_input(request: Request, kind: type[T]) -> T:
    """The request's body as that struct; raises `ProblemError`."""
    headers = dict(request.headers.raw)
    check_json(headers)
    announced = announced_bytes(headers, most=BODY_BYTES_MAX)
    with resources_of(request).budget.hold(_NOBODY, announced) as share:
        body = await read_body(request.receive, share, announced=announced, most=BODY_BYTES_MAX)
    json_text.check(body)
    value: T = decode(msgspec.json.Decoder(kind), body)
    return value


def read_id(text: str) -> UUID:
    """An id from a path; what isn't one is not found, like one that nobody has."""
    try:
        return UUID(text)
    except ValueError:
        raise refused("not_found") from None


def read_cursor(cursor: str | None) -> UUID:
    """Below which id a page begins; raises `ProblemError` for a cursor that isn't ours."""
    if cursor is None:
        return NEWEST
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error):
        raise refused("validation_failed", "not a cursor of this list", pointer="cursor") from None


def next_cursor(ids: Sequence[UUID], *, is_full: bool) -> str | None:
    """The cursor behind a page; None when there is nothing more."""
    return base64.urlsafe_b64encode(ids[-1].bytes).rstrip(b"=").decode() if ids and is_full else None


def read_moment(name: str, moment: datetime | None) -> datetime | None:
    """A time from a query; raises `ProblemError` for one without a zone, or of a year that has none everywhere."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise refused("validation_failed", "a time has a zone: 2026-01-31T12:00:00Z", pointer=name)
    if not 1970 <= moment.year < 9999:
        raise refused("validation_failed", "a time from 1970 on", pointer=name)
    return moment.astimezone(UTC)


def respond(status: int, value: Any, *headers: Header) -> Response:
    """A JSON answer as FastAPI sends it."""
    return as_response(json_answer(status, value, *headers))
