"""What tests of handlers share."""

from collections.abc import Iterator

import pytest

from barnabas.sdk.threads import HandlerThreads


@pytest.fixture
def threads() -> Iterator[HandlerThreads]:
    pool = HandlerThreads(4)
    yield pool
    pool.shutdown()
