"""The world around one service."""

from collections.abc import AsyncIterator

import pytest

from barnabas_local.database import Logins
from tests.support.servers import Servers
from tests.support.world import World, open_world


@pytest.fixture
async def world(servers: Servers, database: Logins) -> AsyncIterator[World]:
    """A database of one's own, and Kafka."""
    async with open_world(servers, database) as opened:
        yield opened
