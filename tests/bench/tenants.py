"""Tenants by the thousand, made by COPY, and what their plans say.

The admin API makes one at a time, as an operator does; a benchmark that needs 10,000 would spend a minute on it. What
is written is what the API writes.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from barnabas.domain.ids import uuid7
from barnabas.domain.keys import hash_secret, make_key, prefix_of
from tests.bench.system import System, Tenant, superuser

_SECRET_BYTES = 20


async def make_tenants(
    system: System, label: str, count: int, *, where: Callable[[UUID], bool] = lambda _: True
) -> list[Tenant]:
    """So many new tenants whose ids `where` accepts, with a key each."""
    run = time.time_ns()
    ids: list[UUID] = []
    while len(ids) < count:
        candidate = _new_id()
        if where(candidate):
            ids.append(candidate)
    made: list[Tenant] = []
    keys: list[tuple[UUID, UUID, str, str, bytes]] = []
    for tenant_id in ids:
        key_id, secret = _new_id(), secrets.token_bytes(_SECRET_BYTES)
        key = make_key(key_id, secret)
        made.append(Tenant(str(tenant_id), key))
        keys.append((tenant_id, key_id, "bench", prefix_of(key), hash_secret(secret)))
    async with superuser(system.stack) as connection, connection.transaction():
        await connection.copy_records_to_table(
            "tenants",
            columns=["tenant_id", "name"],
            records=[(tenant_id, f"bench-{label}-{number}-{run}") for number, tenant_id in enumerate(ids)],
        )
        await connection.copy_records_to_table(
            "api_keys", columns=["tenant_id", "key_id", "name", "prefix", "secret_hash"], records=keys
        )
    return made


async def make_gates(system: System, tenants: Sequence[Tenant], rows: Sequence[Mapping[str, Any]]) -> None:
    """Gates of tenants that have no job yet: the same rows for each, columns by name."""
    columns = ["kind", "allowed", "starts_allowed", "window_seconds"]
    records = [
        (UUID(tenant.id), *[({"window_seconds": 60.0} | dict(row)).get(column) for column in columns])
        for tenant in tenants
        for row in rows
    ]
    async with superuser(system.stack) as connection:
        await connection.copy_records_to_table("gates", columns=["tenant_id", *columns], records=records)


async def set_weight(system: System, tenant: Tenant, weight: int) -> None:
    """What its plan is worth; workers know it with their next heartbeat."""
    await set_limits(system, tenant, weight=weight)


async def set_limits(
    system: System,
    tenant: Tenant,
    *,
    concurrency: int | None = None,
    starts_per_minute: int | None = None,
    weight: int = 1,
) -> None:
    """All of its limits, as an operator sets them."""
    told = system.stack.told
    answer = await system.http.put(
        f"{told['api_url']}/v1/admin/tenants/{tenant.id}/limits",
        headers={"Authorization": f"Bearer {told['admin_key']}"},
        json={"concurrency": concurrency, "starts_per_minute": starts_per_minute, "weight": weight},
    )
    assert answer.is_success, f"{answer.status_code}: {answer.text[:500]}"


def _new_id() -> UUID:
    return uuid7(int(time.time() * 1000), secrets.token_bytes(10))
