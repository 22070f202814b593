"""One ingest for the tests of a module, with real Kafka and real Postgres around it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from barnabas_local.database import Logins
from tests.integration.ingest.support import Caller, RunningIngest, running_ingest
from tests.support.servers import Servers
from tests.support.world import World, open_world


@pytest.fixture(scope="module", autouse=True)
def much_patience() -> Iterator[None]:
    """A starved broker may need longer for a new queue's topics than a caller would wait for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("barnabas_ingest.queues._TOPICS_SECONDS", 60.0)
        yield


@pytest.fixture(scope="module")
async def module_world(servers: Servers, module_database: Logins) -> AsyncIterator[World]:
    async with open_world(servers, module_database) as opened:
        yield opened


@pytest.fixture(scope="module")
async def ingest(module_world: World) -> AsyncIterator[RunningIngest]:
    async with running_ingest(module_world.kafka, module_world.logins) as running:
        yield running


@pytest.fixture
async def tenant(ingest: RunningIngest) -> Caller:
    """A tenant of one's own."""
    return await ingest.tenant()
