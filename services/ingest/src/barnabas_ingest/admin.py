"""The administrator's routes: tenants, their keys, their limits. Only the admin key opens them."""

from uuid import UUID

from fastapi import APIRouter, Depends, Request
from msgspec import UNSET
from starlette.responses import Response

from barnabas.contract.http import (
    KeyInput,
    KeyPage,
    KeyView,
    TenantInput,
    TenantPage,
    TenantView,
)
from barnabas.contract.limits import LimitsInput, limits_view, read_limits_input
from barnabas.contract.problems import refused
from barnabas.domain.keys import hash_secret, make_key, prefix_of
from barnabas.postgres.gates import read_limits, set_limits
from barnabas.postgres.tenants import (
    ApiKey,
    create_api_key,
    create_tenant,
    has_tenant,
    list_api_keys,
    list_tenants,
    revoke_api_key,
)
from barnabas_ingest.routes import (
    LIMIT,
    Cursor,
    Limit,
    Res,
    check_admin,
    next_cursor,
    read_cursor,
    read_id,
    read_input,
    respond,
)

router = APIRouter(prefix="/v1/admin/tenants", tags=["admin"], dependencies=[Depends(check_admin)])

# 192 bits: no pepper and no slow hash is needed.
_SECRET_BYTES = 24
_NO_STORE = (b"cache-control", b"no-store")


@router.post("", operation_id="create_tenant")
async def post_tenant(request: Request, resources: Res) -> Response:
    """Make a tenant (201)."""
    given = await read_input(request, TenantInput)
    made = await create_tenant(resources.database, resources.ids.mint(), given.name)
    if made is None:
        raise refused("name_taken", "there is a tenant of that name", pointer="/name")
    return respond(201, TenantView(made.tenant_id, made.name, made.created_at))


@router.get("", operation_id="list_tenants")
async def get_tenants(resources: Res, cursor: Cursor = None, limit: Limit = LIMIT) -> Response:
    """A page of tenants, newest first."""
    rows = await list_tenants(resources.database, before=read_cursor(cursor), limit=limit)
    cursor = next_cursor([row.tenant_id for row in rows], is_full=len(rows) == limit)
    return respond(200, TenantPage([TenantView(row.tenant_id, row.name, row.created_at) for row in rows], cursor))


@router.post("/{tenant_id}/keys", operation_id="create_key")
async def post_key(request: Request, resources: Res, tenant_id: str) -> Response:
    """Make an API key. The key is in this answer and nowhere else (201)."""
    owner = read_id(tenant_id)
    given = await read_input(request, KeyInput)
    key_id = resources.ids.mint()
    secret = resources.random_bytes(_SECRET_BYTES)
    key = make_key(key_id, secret)
    made = await create_api_key(
        resources.database, owner, key_id, name=given.name, prefix=prefix_of(key), secret_hash=hash_secret(secret)
    )
    if made is None:
        raise refused("not_found")
    return respond(201, _key_view(made, key=key), _NO_STORE)


@router.get("/{tenant_id}/keys", operation_id="list_keys")
async def get_keys(resources: Res, tenant_id: str, cursor: Cursor = None, limit: Limit = LIMIT) -> Response:
    """A page of a tenant's keys, newest first, revoked ones too."""
    owner = await _known(resources, tenant_id)
    rows = await list_api_keys(resources.database, owner, before=read_cursor(cursor), limit=limit)
    cursor = next_cursor([row.key_id for row in rows], is_full=len(rows) == limit)
    return respond(200, KeyPage([_key_view(row) for row in rows], cursor))


@router.delete("/{tenant_id}/keys/{key_id}", operation_id="revoke_key")
async def remove_key(resources: Res, tenant_id: str, key_id: str) -> Response:
    """Revoke a key: refused within 5 seconds, everywhere (204)."""
    if not await revoke_api_key(resources.database, read_id(tenant_id), read_id(key_id)):
        raise refused("not_found")
    return Response(status_code=204)


@router.get("/{tenant_id}/limits", operation_id="get_limits")
async def get_limits(resources: Res, tenant_id: str) -> Response:
    """A tenant's limits, and how much of them is used."""
    return await _limits(resources, read_id(tenant_id))


@router.put("/{tenant_id}/limits", operation_id="set_limits")
async def put_limits(request: Request, resources: Res, tenant_id: str) -> Response:
    """Replace a tenant's limits, all of them: a limit that is left out is taken away. They hold when this answers."""
    limits = read_limits_input(await read_input(request, LimitsInput))
    owner = await _known(resources, tenant_id)
    await set_limits(resources.database, owner, limits)
    return await _limits(resources, owner)


async def _limits(resources: Res, tenant_id: UUID) -> Response:
    found = await read_limits(resources.database, tenant_id)
    if found is None:
        raise refused("not_found")
    return respond(200, limits_view(*found))


async def _known(resources: Res, tenant_id: str) -> UUID:
    owner = read_id(tenant_id)
    if not await has_tenant(resources.database, owner):
        raise refused("not_found")
    return owner


def _key_view(row: ApiKey, *, key: str | None = None) -> KeyView:
    return KeyView(
        id=row.key_id,
        name=row.name,
        prefix=row.prefix,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        key=UNSET if key is None else key,
    )
