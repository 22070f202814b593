"""An API that answers as a test has written, and either client in front of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.unit.client.caller import Caller
from tests.unit.client.server import Script, scripted_server


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted_server() as script:
        yield script


@pytest.fixture(params=["blocking", "async"])
async def call(request: pytest.FixtureRequest, server: Script) -> AsyncIterator[Caller]:
    caller = Caller(request.param, server.url)
    yield caller
    await caller.close()
