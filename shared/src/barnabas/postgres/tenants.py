"""Tenants and their API keys. Run by the engine login: who asks is the administrator, or a credential not yet known."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from barnabas.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose work it is."""

    tenant_id: UUID
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be shown: never its secret, of which only a hash exists."""

    key_id: UUID
    name: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None


async def find_api_key(database: Database, key_id: UUID) -> tuple[UUID, bytes] | None:
    """The tenant and the stored hash behind a key that isn't revoked."""
    row = await database.fetchrow("find_api_key", key_id)
    return None if row is None else (row["tenant_id"], row["secret_hash"])


async def create_tenant(database: Database, tenant_id: UUID, name: str) -> Tenant | None:
    """A new tenant; None when the name is taken."""
    created_at = await database.fetchval("insert_tenant", tenant_id, name)
    return None if created_at is None else Tenant(tenant_id, name, created_at)


async def list_tenants(database: Database, *, before: UUID, limit: int) -> list[Tenant]:
    """A page of all tenants, newest first."""
    return [Tenant(*row) for row in await database.fetch("list_tenants", before, limit)]


async def has_tenant(database: Database, tenant_id: UUID) -> bool:
    """Whether there is such a tenant."""
    return bool(await database.fetchval("has_tenant", tenant_id))


async def create_api_key(
    database: Database, tenant_id: UUID, key_id: UUID, *, name: str, prefix: str, secret_hash: bytes
) -> ApiKey | None:
    """A new key of a tenant; None when there is no such tenant."""
    created_at = await database.fetchval("insert_api_key", tenant_id, key_id, name, prefix, secret_hash)
    return None if created_at is None else ApiKey(key_id, name, prefix, created_at, None)


async def list_api_keys(database: Database, tenant_id: UUID, *, before: UUID, limit: int) -> list[ApiKey]:
    """A page of a tenant's keys, newest first, revoked ones too."""
    return [ApiKey(*row) for row in await database.fetch("list_api_keys", tenant_id, before, limit)]


async def revoke_api_key(database: Database, tenant_id: UUID, key_id: UUID) -> bool:
    """End a key; false when there is none. Revoking twice is fine."""
    return await database.fetchval("revoke_api_key", tenant_id, key_id) is not None
