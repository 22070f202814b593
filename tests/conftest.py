"""What every test may ask for: the session's servers, and a database of its own; and how properties are tried."""

import signal
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from barnabas_local.database import Logins
from tests.support.servers import Servers, open_servers

# Few examples, without a limit for each, and the same ones each time: what they find is for ever, not for one run.
settings.register_profile("tests", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("tests")


def pytest_configure() -> None:
    """A run that is told to end takes along what it has started, as one that is interrupted does."""
    # A shell has what it starts in the background ignore this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))


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
