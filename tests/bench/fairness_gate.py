"""All slots taken until everything is in line: what starts then is in an order that no slow submission has made."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.system import System, Tenant
from tests.bench.tenants import make_tenants
from tests.support.eventually import eventually

# A worker keeps one slot of so many for tenants that hold none: one tenant can't take those.
_SLOTS_FOR_EACH_KEPT = 64


@dataclass(frozen=True, slots=True)
class Taken:
    """Who has the slots, and with how many jobs; they end when the block does."""

    tenant: Tenant
    jobs: int


@asynccontextmanager
async def slots_taken(system: System) -> AsyncIterator[Taken]:
    """Inside the block nothing starts, a kept slot's jobs apart; when it ends all slots are free at once."""
    (tenant,) = await make_tenants(system, "gate", 1)
    rows = await system.database.fetch("SELECT slots FROM workers WHERE service = 'worker' AND lease_until > now()")
    jobs = sum(row["slots"] - row["slots"] // _SLOTS_FOR_EACH_KEPT for row in rows)

    async def running() -> int:
        count: int = await system.database.fetchval(
            "SELECT count(*) FROM jobs WHERE tenant_id = $1::uuid AND state = 3", tenant.id
        )
        return count

    with tempfile.TemporaryDirectory() as directory:
        gate = Path(directory) / "open"
        async with system.stack.client(tenant.key) as client:
            await client.submit_batch([{"type": "gate", "payload": {"file": str(gate)}} for _ in range(jobs)])
        try:
            await eventually(running, until=lambda count: count == jobs)
            yield Taken(tenant, jobs)
        finally:
            gate.touch()
            await eventually(lambda: system.rows([tenant]), until=lambda ended: ended == jobs)
