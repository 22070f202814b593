"""A pool whose server goes away and comes back."""

import asyncio

import pytest

from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.database import Session
from tests.support.world import World


async def end_sessions(world: World) -> None:
    await world.superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'barnabas-engine'"
    )


async def test_a_session_whose_server_ended_it_says_so_and_the_next_one_works(world: World) -> None:
    async with world.engine.session() as session:
        await end_sessions(world)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailableError):
                await session.fetchval("read_clock")

    assert await world.engine.fetchval("read_clock") is not None


async def test_a_transaction_whose_server_ended_it_says_so(world: World) -> None:
    async def step(session: Session) -> None:
        await session.fetchval("read_clock")
        await end_sessions(world)
        await session.fetchval("read_clock")

    with pytest.raises(DatabaseUnavailableError):
        await world.engine.run(step)

    assert await world.engine.fetchval("read_clock") is not None


async def test_a_connection_that_dies_while_it_is_given_back_is_nobodys_error(world: World) -> None:
    loop = asyncio.get_running_loop()
    async with world.engine.session() as session:
        await session.fetchval("read_clock")
        # Not before the pool has looked whether it is open, and before it acts on that.
        loop.call_soon(loop.call_soon, session.connection.terminate)

    assert await world.engine.fetchval("read_clock") is not None
