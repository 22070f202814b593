"""Endpoints as their tenant manages them, under row security: every call runs as the tenant it acts for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from barnabas.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A tenant's URL. `headers` is JSON text, `retry_schedule_seconds` None for the default schedule."""

    endpoint_id: UUID
    url: str
    event_types: list[str] | None
    retry_schedule_seconds: list[float] | None
    headers: str | None
    disabled_reason: str | None
    created_at: datetime
    disabled_at: datetime | None


async def create_endpoint(
    database: Database,
    tenant_id: UUID,
    endpoint_id: UUID,
    *,
    url: str,
    event_types: Sequence[str] | None,
    retry_schedule_seconds: Sequence[float] | None,
    headers: str | None,
    secret_id: UUID,
    secret: str,
) -> datetime:
    """Store a URL with its first secret; returns when."""
    async with database.tenant(tenant_id) as session:
        created_at: datetime = await session.fetchval(
            "insert_endpoint",
            tenant_id,
            endpoint_id,
            url,
            event_types,
            retry_schedule_seconds,
            headers,
            secret_id,
            secret,
        )
    return created_at


async def list_endpoints(database: Database, tenant_id: UUID, *, before: UUID, limit: int) -> list[Endpoint]:
    """A page of a tenant's endpoints, newest first, without deleted ones."""
    async with database.tenant(tenant_id) as session:
        return [Endpoint(*row) for row in await session.fetch("list_endpoints", tenant_id, before, limit)]


async def delete_endpoint(database: Database, tenant_id: UUID, endpoint_id: UUID) -> bool:
    """Stop deliveries to it; false when there is no such endpoint."""
    async with database.tenant(tenant_id) as session:
        return await session.fetchval("delete_endpoint", tenant_id, endpoint_id) is not None
