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
        # It leaves the group once it has had no lease for as long as one lasts.
        cut_off = await start_worker(POSTGRES=wire.through(world.logins.engine_dsn), LEASE_SECONDS="3")
        other = await start_worker()

        async def share() -> bool:
            """Whether each worker has run something: both do once each has its partitions."""
            for tenant in tenants:
                await world.submit(tenant, "count")
            rows = await world.superuser.fetch("SELECT DISTINCT worker_id FROM job_results")
            return {row["worker_id"] for row in rows} >= {cut_off.worker_id, other.worker_id}

        await eventually(share)
        await wire.cut()
        jobs = [job for tenant in tenants for job in await world.submit(tenant, "count", count=3)]

        # Nobody reaps here what was under way.
        await eventually(lambda: open_jobs(world, jobs), until=lambda count: count == 0, timeout=120)


async def open_jobs(world: World, jobs: list[UUID]) -> int:
    count: int = await world.superuser.fetchval("SELECT count(*) FROM jobs WHERE job_id = ANY ($1)", jobs)
    return count
