"""A notifier that lost its Postgres and not its Kafka: it must not keep events from notifiers that could store them."""

from typing import Any
from uuid import UUID

from tests.integration.ingest.support import Wire
from tests.integration.notifier.conftest import Post, StartNotifier
from tests.support.eventually import eventually


async def test_a_notifier_that_is_cut_off_from_postgres_leaves_its_partitions_to_the_others(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenants = [await post.world.tenant() for _ in range(12)]
    for tenant_id in tenants:
        await post.endpoint(tenant_id, post.receiver.url("/"))

    async def announce() -> set[UUID]:
        events = [event for tenant_id in tenants for event in await post.ended_jobs(tenant_id)]
        for event in events:
            await post.announce([event])
        return {event.id for event in events}

    async def delivered() -> list[Any]:
        rows = [row for tenant_id in tenants for row in await post.deliveries(tenant_id)]
        return [row for row in rows if row["last_status"] == 204]

    async with Wire(post.world.logins.engine_dsn) as wire:
        # It leaves the group once it has had no lease for as long as one lasts.
        cut_off = await start_notifier(POSTGRES=wire.through(post.world.logins.engine_dsn), LEASE_SECONDS="3")
        other = await start_notifier()

        async def share() -> bool:
            """Whether each notifier has delivered something: both do once each has its partitions."""
            await announce()
            return {row["worker_id"] for row in await delivered()} >= {cut_off.worker_id, other.worker_id}

        await eventually(share)
        await wire.cut()
        events = await announce()

        # Nobody reaps here what was under way.
        await eventually(delivered, until=lambda rows: {row["event_id"] for row in rows} >= events, timeout=120)
