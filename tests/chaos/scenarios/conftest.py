"""One system with two workers for all scenarios that leave it well."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.chaos.scenarios.instruments import APP
from tests.support.stack import Stack, open_stack

# Servers that fail over, fill their disks and stand still take minutes: `make scenarios` asks for them.
collect_ignore = [] if os.environ.get("CHAOS_SCENARIOS") else ["test_load.py", "test_processes.py", "test_servers.py"]


@pytest.fixture(scope="package")
async def stack() -> AsyncIterator[Stack]:
    """`barnabas up --workers 2`."""
    async with open_stack(workers=2, app=APP) as running:
        yield running
