"""A worker that lost its Postgres and not its Kafka: it must not keep records from workers that could claim them."""

from uuid import UUID

from tests.integration.ingest.support import Wire
from tests.integration.worker.conftest import StartWorker
from tests.support.eventually import eventually
from tests.support.world import World


async def test_a_worker_that_is_cut_off_from_postgres_leaves_its_partitions_to_the_others(
    world: World, start_worker: StartWorker
) -> None:
    tenants = [await world.tenant() for _ in range(12)]
    async with Wire(world.logins.engine_dsn) as wire:
        await start_worker(POSTGRES=wire.through(world.logins.engine_dsn), LEASE_SECONDS="2")
        await start_worker(LEASE_SECONDS="2")

        async def shared() -> int:
            """How many workers have run something: both do once each has its partitions."""
            for tenant in tenants:
                await world.submit(tenant, "count")
            rows = await world.superuser.fetch("SELECT DISTINCT worker_id FROM job_results")
            return len(rows)

        await eventually(shared, until=lambda count: count == 2, timeout=60)
        await eventually(lambda: open_jobs(world, tenants), until=lambda count: count == 0, timeout=60)
        await wire.cut()
        for tenant in tenants:
            await world.submit(tenant, "count", count=3)

        await eventually(lambda: open_jobs(world, tenants), until=lambda count: count == 0, timeout=60)


async def open_jobs(world: World, tenants: list[UUID]) -> int:
    count: int = await world.superuser.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = ANY ($1)", tenants)
    return count
