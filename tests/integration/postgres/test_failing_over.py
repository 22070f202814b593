"""Limits of a login's sessions, and connections that leave a server which takes no writes any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.connecting import connect
from barnabas.postgres.database import Session, open_database
from barnabas.postgres.retention import Partition, drop_partition
from tests.support.eventually import eventually
from tests.support.world import World


async def limits_of(world: World, dsn: str) -> dict[str, str]:
    connection = await asyncpg.connect(dsn)
    try:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
        return {name: await connection.fetchval("SELECT current_setting($1)", name) for name in names}
    finally:
        await connection.close()


async def test_each_service_login_has_limits_of_its_own(world: World) -> None:
    engine = await limits_of(world, world.logins.engine_dsn)
    api = await limits_of(world, world.logins.api_dsn)

    assert engine == {
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "30s",
        "transaction_timeout": "1min",
    }
    assert "0" not in api.values()


async def test_a_session_idle_in_a_transaction_is_ended_and_the_next_one_works(world: World) -> None:
    async def idle(session: Session) -> None:
        await session.connection.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        pid = session.connection.get_server_pid()
        gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
        await eventually(lambda: world.superuser.fetchval(gone, pid), timeout=60.0)
        await session.fetchval("read_clock")

    with pytest.raises(DatabaseUnavailableError):
        await world.engine.run(idle)

    assert await world.engine.fetchval("read_clock") is not None


@pytest.mark.parametrize(
    ("limit", "causes"),
    [
        ("statement_timeout", (asyncpg.QueryCanceledError,)),
        # The server may have ended the session before it was asked.
        (
            "transaction_timeout",
            (asyncpg.TransactionTimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError),
        ),
    ],
)
async def test_a_statement_over_its_time_is_tried_later_and_the_next_one_works(
    world: World, limit: str, causes: tuple[type[Exception], ...]
) -> None:
    async def ask(session: Session) -> None:
        # No other limit may be what ends it, and one of a transaction begins anew only once there was none.
        await session.connection.execute("SET LOCAL lock_timeout = 0")
        await session.connection.execute(f"SET LOCAL {limit} = 0")
        await session.connection.execute(f"SET LOCAL {limit} = '50ms'")
        await session.fetch("list_queues")

    async with world.superuser.transaction():
        # Held for as long as it takes: the statement waits for this lock and for nothing else.
        await world.superuser.execute("LOCK TABLE queues IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailableError) as raised:
            await world.engine.run(ask)

    assert isinstance(raised.value.__cause__, causes)
    assert await world.engine.fetch("list_queues")


async def test_dropping_a_day_may_take_longer_than_the_logins_statements(world: World) -> None:
    """The limits of the login are set to next to nothing for this one; the drop lifts them for its transaction."""
    await world.superuser.execute(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$"
    )
    await world.superuser.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON job_payloads_kept FOR EACH ROW EXECUTE FUNCTION slowly()"
    )
    tenant = await world.tenant()
    (job_id,) = await world.insert(tenant)
    name = await world.superuser.fetchval("SELECT tableoid::regclass::text FROM job_payloads WHERE job_id = $1", job_id)
    today = Partition("job_payloads", date.fromisoformat(name[-8:]))
    # Longer than a machine that stands still keeps the other statements of this session.
    dsn = world.logins.engine_dsn + "?statement_timeout=2s&transaction_timeout=2s"

    async with open_database(dsn, login="engine", size_max=1) as hurried:
        with pytest.raises(DatabaseUnavailableError):
            await hurried.fetchval("drop_partition", today.parent, today.day)

        assert await drop_partition(hurried, today, seconds=120.0)


@asynccontextmanager
async def silent_host() -> AsyncIterator[str]:
    """Takes connections and never says a word, as a frozen primary does."""
    writers: list[asyncio.StreamWriter] = []

    async def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()


def beside(dsn: str, host: str) -> str:
    """The DSN with another host before its own, of which the one that takes writes is wanted."""
    parts = urlsplit(dsn)
    login, _, own = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}@{host},{own}", query="target_session_attrs=read-write"))


async def test_a_host_that_says_nothing_does_not_keep_from_the_one_that_answers(world: World) -> None:
    async with silent_host() as silent:
        dsn = beside(world.logins.engine_dsn, silent)
        connection = await connect(dsn, timeout=60.0)
        try:
            assert await connection.fetchval("SELECT 1") == 1
        finally:
            await connection.close()

        async with open_database(dsn, login="engine", size_max=2) as database:
            assert database.wants_primary
            assert await database.fetchval("read_clock") is not None


async def engine_pids(world: World) -> set[int]:
    """The engine's connections to this database, as the server sees them."""
    rows = await world.superuser.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'barnabas-engine'"
    )
    return {row["pid"] for row in rows}


async def test_a_pool_leaves_a_server_that_takes_no_writes_any_more(world: World) -> None:
    """Read-only by its own default, as an old primary that stays up is made to be."""
    others = await engine_pids(world)
    dsn = beside(world.logins.engine_dsn, urlsplit(world.logins.engine_dsn).netloc.rpartition("@")[2])
    async with open_database(dsn, login="engine", size_max=4) as database:
        async with database.session(), database.session(), database.session():
            assert len(await engine_pids(world) - others) >= 3
        async with database.session() as session:
            # What a reload of the server's configuration does to a session that lives.
            await session.connection.execute("SET default_transaction_read_only = on")
            with pytest.raises(DatabaseUnavailableError):
                await session.execute("delete_outbox", [0])

        # That one, and those that lay idle beside it.
        await eventually(lambda: engine_pids(world), until=lambda pids: not pids - others, timeout=60.0)
        assert await database.execute("delete_outbox", [0]) == "DELETE 0"


async def test_a_connection_that_only_reads_leaves_such_a_server_too(world: World) -> None:
    dsn = world.logins.engine_dsn + "?target_session_attrs=read-write"
    async with open_database(dsn, login="engine", size_max=1) as database:
        async with database.session() as session:
            before = session.connection.get_server_pid()
            await session.connection.execute("SET default_transaction_read_only = on")
        async with database.session() as session:
            after = session.connection.get_server_pid()

        assert after != before
