"""Endpoints as the notifier needs them: where to, signed with what, after which schedule.

Read afresh for each batch of events and every few seconds for lanes in use, so that a deleted or disabled endpoint, or
a rotated secret, counts soon after it was committed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from barnabas.domain.backoff import DEFAULT_DELIVERY_SCHEDULE
from barnabas.postgres.database import Session


class EndpointKey(NamedTuple):
    """One endpoint of one tenant."""

    tenant_id: UUID
    endpoint_id: UUID


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """An endpoint as it was when read. `closed` says why nothing may be sent to it; None when it may."""

    key: EndpointKey
    url: str
    event_types: frozenset[str] | None
    schedule: tuple[float, ...]
    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """Live ones, the newest first."""
    closed: str | None = None

    def wants(self, event_type: str) -> bool:
        """Whether it subscribed to that type; no list is all of them."""
        return self.event_types is None or event_type in self.event_types


async def find_endpoints(session: Session, tenant_ids: Iterable[UUID]) -> dict[UUID, list[LiveEndpoint]]:
    """The endpoints of these tenants that aren't deleted, by tenant."""
    found: dict[UUID, list[LiveEndpoint]] = {}
    for row in await session.fetch("find_endpoints", sorted(set(tenant_ids))):
        found.setdefault(row["tenant_id"], []).append(_endpoint(row))
    return found


async def read_endpoints(session: Session, keys: Sequence[EndpointKey]) -> dict[EndpointKey, LiveEndpoint]:
    """These endpoints, deleted ones too; one that never was is left out."""
    wanted = sorted(set(keys))
    rows = await session.fetch("read_endpoints", [key.tenant_id for key in wanted], [key.endpoint_id for key in wanted])
    endpoints = [_endpoint(row) for row in rows]
    return {endpoint.key: endpoint for endpoint in endpoints}


def _endpoint(row: asyncpg.Record) -> LiveEndpoint:
    schedule = row["retry_schedule_seconds"]
    types = row["event_types"]
    closed = "endpoint_deleted" if row["deleted_at"] else "endpoint_disabled" if row["disabled_at"] else None
    return LiveEndpoint(
        EndpointKey(row["tenant_id"], row["endpoint_id"]),
        row["url"],
        None if not types else frozenset(types),
        DEFAULT_DELIVERY_SCHEDULE if schedule is None else tuple(schedule),
        msgspec.json.decode(row["headers"], type=dict[str, str]) if row["headers"] else {},
        tuple(row["secrets"]),
        closed,
    )
