"""A retry-scheduler's resources in the test's own world: the leader, with Postgres within reach for long enough."""

from collections.abc import AsyncIterator

import pytest

from barnabas_retry_scheduler.lead import ask_once
from barnabas_retry_scheduler.resources import Resources, open_resources
from barnabas_retry_scheduler.settings import RetrySchedulerSettings
from tests.support.world import World


def settings_for(world: World, **fields: object) -> RetrySchedulerSettings:
    """Settings of a retry-scheduler in this world."""
    values = {"kafka": world.kafka, "postgres": world.logins.engine_dsn, "lease_seconds": 1.0} | fields
    return RetrySchedulerSettings(**values)  # type: ignore[arg-type]  # pydantic checks them


@pytest.fixture
async def scheduler(world: World) -> AsyncIterator[Resources]:
    """The only retry-scheduler in this database; it leads."""
    async with open_resources(settings_for(world)) as resources:
        assert await ask_once(resources)
        yield resources
