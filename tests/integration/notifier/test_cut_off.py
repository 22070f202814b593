"""A notifier that lost its Postgres and not its Kafka: it must not keep events from notifiers that could store them."""

from tests.integration.ingest.support import Wire
from tests.integration.notifier.conftest import Post, StartNotifier
from tests.support.eventually import eventually


async def test_a_notifier_that_is_cut_off_from_postgres_leaves_its_partitions_to_the_others(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenants = [await post.world.tenant() for _ in range(12)]
    for tenant_id in tenants:
        await post.endpoint(tenant_id, post.receiver.url("/"))

    async def announce() -> None:
        for tenant_id in tenants:
            await post.announce(await post.ended_jobs(tenant_id))

    async def left() -> int:
        rows = [row for tenant_id in tenants for row in await post.deliveries(tenant_id)]
        ended = await post.world.superuser.fetchval("SELECT count(*) FROM job_results")
        return int(ended) - sum(1 for row in rows if row["last_status"] == 204)

    async with Wire(post.world.logins.engine_dsn) as wire:
        await start_notifier(POSTGRES=wire.through(post.world.logins.engine_dsn), LEASE_SECONDS="2")
        await start_notifier(LEASE_SECONDS="2")

        async def shared() -> int:
            """How many notifiers have delivered something: both do once each has its partitions."""
            await announce()
            await eventually(left, until=lambda count: count == 0, timeout=60)
            rows = [row for tenant_id in tenants for row in await post.deliveries(tenant_id)]
            return len({row["worker_id"] for row in rows})

        await eventually(shared, until=lambda count: count == 2, timeout=60)
        await wire.cut()
        await announce()

        await eventually(left, until=lambda count: count == 0, timeout=60)
