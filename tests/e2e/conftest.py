"""One whole system for all end-to-end tests that don't harm it, and a webhook receiver."""

from collections.abc import AsyncIterator

import pytest

from tests.support.receiver import Receiver, open_receiver
from tests.support.stack import Stack, open_stack


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    """`barnabas up`."""
    async with open_stack() as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An endpoint on this machine."""
    async with open_receiver() as running:
        yield running
