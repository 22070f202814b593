"""What every test may ask for: the session's servers, and a database of its own."""

from collections.abc import AsyncIterator

import pytest

from barnabas_local.database import Logins
from tests.support.servers import Servers, open_servers


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[Servers]:
    """Real Kafka and real Postgres, started once."""
    async with open_servers() as opened:
        yield opened


@pytest.fixture
async def database(servers: Servers) -> AsyncIterator[Logins]:
    """A fresh migrated database for one test."""
    async with servers.database() as logins:
        yield logins


@pytest.fixture(scope="module")
async def module_database(servers: Servers) -> AsyncIterator[Logins]:
    """One migrated database for the tests of one module, which must not disturb each other."""
    async with servers.database() as logins:
        yield logins
