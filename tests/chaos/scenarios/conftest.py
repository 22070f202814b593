"""One system with two workers for all scenarios that leave it well."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.chaos.scenarios.instruments import APP
from tests.support.stack import Stack, open_stack

# Those that start servers of their own take minutes each: `make scenarios` asks for them.
collect_ignore = [] if os.environ.get("CHAOS_SCENARIOS") else ["test_own_systems.py"]


@pytest.fixture(scope="package")
async def stack() -> AsyncIterator[Stack]:
    """`barnabas up --workers 2`."""
    async with open_stack(workers=2, app=APP) as running:
        yield running
