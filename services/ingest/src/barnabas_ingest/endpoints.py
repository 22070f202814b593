"""The URLs that a tenant wants to be told at: made, listed, deleted.

A URL is judged here and again at each try: what its name resolves to may have changed since.
"""

import asyncio
import re
import socket

import msgspec
import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response

from barnabas.contract.http import EndpointInput, EndpointPage, EndpointView
from barnabas.contract.jobs import raw
from barnabas.contract.problems import refused
from barnabas.domain.backoff import BadRetryScheduleError, check_schedule
from barnabas.domain.signing import make_secret
from barnabas.domain.targets import BadTargetError, parse_target, refusal
from barnabas.postgres.endpoints import Endpoint, create_endpoint, delete_endpoint, list_endpoints
from barnabas_ingest.routes import (
    LIMIT,
    Cursor,
    Limit,
    Res,
    TenantId,
    next_cursor,
    read_cursor,
    read_id,
    read_input,
    respond,
)

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

_SECRET_BYTES = 32
_RESOLVE_SECONDS = 3.0
_HEADERS_MAX = 20
_HEADERS_BYTES_MAX = 4_096
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[ -~]{0,1024}")
# What the delivery itself says, or what frames it.
_OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "keep-alive"}
    | {"te", "trailer", "upgrade", "expect", "user-agent", "accept-encoding", "proxy-authorization", "x-signature"}
)


@router.post("", operation_id="create_endpoint")
async def post_endpoint(request: Request, resources: Res, tenant_id: TenantId) -> Response:
    """Make an endpoint. Its secret is in this answer and nowhere else (201)."""
    given = await read_input(request, EndpointInput)
    await check_target(given.url, allow_private=resources.settings.allow_private_endpoints)
    schedule = _schedule(given.retry_schedule_seconds)
    headers = _headers(given.headers)
    endpoint_id = resources.ids.mint()
    secret = make_secret(resources.random_bytes(_SECRET_BYTES))
    types: list[str] | None = None if given.event_types is None else [*dict.fromkeys(given.event_types)]
    created_at = await create_endpoint(
        resources.api,
        tenant_id,
        endpoint_id,
        url=given.url,
        event_types=types,
        retry_schedule_seconds=schedule,
        headers=headers,
        secret_id=resources.ids.mint(),
        secret=secret,
    )
    made = Endpoint(endpoint_id, given.url, types, schedule, headers, None, created_at, None)
    view = _view(made, secret=secret)
    return respond(201, view, (b"location", b"/v1/endpoints/%b" % str(endpoint_id).encode()))


@router.get("", operation_id="list_endpoints")
async def get_endpoints(resources: Res, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = LIMIT) -> Response:
    """A page of endpoints, newest first."""
    rows = await list_endpoints(resources.api, tenant_id, before=read_cursor(cursor), limit=limit)
    cursor = next_cursor([row.endpoint_id for row in rows], is_full=len(rows) == limit)
    return respond(200, EndpointPage([_view(row) for row in rows], cursor))


@router.delete("/{endpoint_id}", operation_id="delete_endpoint")
async def remove_endpoint(resources: Res, tenant_id: TenantId, endpoint_id: str) -> Response:
    """Delete an endpoint: nothing is delivered to it from now on (204)."""
    if not await delete_endpoint(resources.api, tenant_id, read_id(endpoint_id)):
        raise refused("not_found")
    return Response(status_code=204)


async def check_target(url: str, *, allow_private: bool) -> None:
    """Raise `ProblemError` for a URL that webhooks may not go to, by its text or by what its name resolves to.

    A name that doesn't resolve just now is let through: each try asks again.
    """
    try:
        target = parse_target(url, allow_private=allow_private)
    except BadTargetError as error:
        raise refused("bad_target", str(error), pointer="/url") from None
    if target.is_address:
        return
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        log.info("endpoint_name_unresolved")
        return
    if any(refusal(str(address[0]), allow_private=allow_private) is not None for *_, address in found):
        # Which address it was is none of the caller's business: it would map the network we run in.
        raise refused("bad_target", "the host's name leads to an address that is not public", pointer="/url")


def _view(row: Endpoint, *, secret: str | None = None) -> EndpointView:
    return EndpointView(
        id=row.endpoint_id,
        url=row.url,
        event_types=row.event_types,
        retry_schedule_seconds=row.retry_schedule_seconds,
        headers=raw(None if row.headers is None else row.headers.encode()),
        status="enabled" if row.disabled_at is None else "disabled",
        disabled_reason=row.disabled_reason,
        disabled_at=row.disabled_at,
        created_at=row.created_at,
        secret=msgspec.UNSET if secret is None else secret,
    )


def _schedule(given: list[float] | None) -> list[float] | None:
    if given is None:
        return None
    try:
        return [*check_schedule(given)]
    except BadRetryScheduleError as error:
        raise refused("validation_failed", str(error), pointer="/retry_schedule_seconds") from None


def _headers(given: dict[str, str] | None) -> str | None:
    if not given:
        return None
    for name, value in given.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name) or lower in _OWN_HEADERS or lower.startswith("webhook-"):
            raise refused("validation_failed", f"this header can't be set: {name[:64]!r}", pointer="/headers")
        if not _HEADER_VALUE.fullmatch(value):
            raise refused("validation_failed", "a header has up to 1024 printable ASCII characters", pointer="/headers")
    text = msgspec.json.encode(given).decode()
    if len(given) > _HEADERS_MAX or len(text) > _HEADERS_BYTES_MAX:
        raise refused("validation_failed", "at most 20 headers and 4 KiB", pointer="/headers")
    return text
