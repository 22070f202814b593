"""A retry-scheduler's resources in the test's own world: the leader, with Postgres within reach for long enough."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import UUID

import pytest

from barnabas.contract.records import decode
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.partitions import ConsumedRecord
from barnabas_retry_scheduler import lead
from barnabas_retry_scheduler.keep_topics import keep_topics_once
from barnabas_retry_scheduler.resources import Resources, open_resources
from barnabas_retry_scheduler.settings import RetrySchedulerSettings
from tests.support.eventually import eventually
from tests.support.world import World


def settings_for(world: World, **fields: object) -> RetrySchedulerSettings:
    """Settings of a retry-scheduler in this world."""
    values = {"kafka": world.kafka, "postgres": world.logins.engine_dsn, "lease_seconds": 1.0} | fields
    return RetrySchedulerSettings(**values)  # type: ignore[arg-type]  # pydantic checks them


async def ask_once(resources: Resources) -> bool:
    """The question, over some connection."""
    async with resources.database.session() as session:
        return await lead.ask_once(resources, session)


def of_job(job_id: UUID, fence: int = 0) -> Callable[[ConsumedRecord], bool]:
    """Whether a record points at this job, under this fence."""

    def wanted(record: ConsumedRecord) -> bool:
        envelope = decode(record.value)
        return (envelope.ref_id, envelope.fence) == (job_id, fence)

    return wanted


async def waits_for_a_lock(world: World) -> bool:
    """Whether some statement in this database waits for another transaction."""
    waiting: bool = await world.superuser.fetchval(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return waiting


async def keep(scheduler: Resources) -> list[str]:
    """Topics that are other ones than Postgres remembers; none while the broker is busy with them."""
    with suppress(BrokerUnavailableError):
        return await keep_topics_once(scheduler)
    return []


async def wipe(scheduler: Resources, admin: Admin, name: str) -> None:
    """Delete a topic; it is made anew, and that is noticed."""
    await admin.delete_topics([name])
    # The broker's list may have the old one for a moment: the loop would look again, too.
    await eventually(lambda: keep(scheduler), until=lambda changed: changed == [name])


@pytest.fixture
async def scheduler(world: World) -> AsyncIterator[Resources]:
    """The only retry-scheduler in this database; it leads."""
    async with open_resources(settings_for(world)) as resources:
        assert await ask_once(resources)
        yield resources
