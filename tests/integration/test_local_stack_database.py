"""The logins and the database as `prepare_database` leaves them, on a real server."""

import asyncio

import asyncpg
import pytest

from barnabas_local.database import Logins, prepare_database
from barnabas_local.errors import LocalStackError
from tests.support.eventually import eventually
from tests.support.servers import Servers


async def test_preparing_the_same_database_many_times_at_once_changes_nothing(
    servers: Servers, database: Logins
) -> None:
    name = database.owner_dsn.rpartition("/")[2]

    answers = await asyncio.gather(*(prepare_database(servers.superuser_dsn, database=name) for _ in range(5)))

    assert set(answers) == {database}


async def test_a_database_is_prepared_by_one_program_at_a_time_rights_included(
    servers: Servers, database: Logins
) -> None:
    name = database.owner_dsn.rpartition("/")[2]
    # Of two that change a database's rights at once, Postgres refuses one: so the last step has the lock, too.
    waiting = (
        "SELECT (SELECT count(*) FROM pg_locks AS lock WHERE lock.pid = one.pid AND locktype = 'advisory' AND granted)"
        "  FROM pg_stat_activity AS one WHERE wait_event_type = 'Lock' AND query LIKE $1"
    )
    other, observer = [await asyncpg.connect(servers.superuser_dsn) for _ in range(2)]
    try:
        changing = other.transaction()
        await changing.start()
        await other.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        preparing = asyncio.create_task(prepare_database(servers.superuser_dsn, database=name))
        locks = await eventually(
            lambda: observer.fetchval(waiting, f"REVOKE ALL ON DATABASE {name} %"), until=lambda held: held is not None
        )
        await changing.rollback()

        assert (locks, await preparing) == (1, database)
    finally:
        await other.close()
        await observer.close()


async def test_no_login_is_a_superuser_or_above_row_security(database: Logins) -> None:
    for dsn, name in (
        (database.owner_dsn, "barnabas_owner"),
        (database.engine_dsn, "barnabas_engine"),
        (database.api_dsn, "barnabas_api"),
    ):
        connection = await asyncpg.connect(dsn)
        try:
            row = await connection.fetchrow(
                "SELECT rolname, rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole AS mighty"
                "  FROM pg_roles WHERE rolname = current_user"
            )
        finally:
            await connection.close()

        assert row is not None
        assert (row["rolname"], row["mighty"]) == (name, False)


async def test_the_engine_plans_for_batches(database: Logins) -> None:
    connection = await asyncpg.connect(database.engine_dsn)
    try:
        settings = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in ("plan_cache_mode", "enable_seqscan", "enable_hashjoin", "enable_mergejoin")
        }
    finally:
        await connection.close()

    assert settings == {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }


async def test_a_fresh_database_is_migrated_and_its_neighbour_does_not_see_its_rows(servers: Servers) -> None:
    async with servers.database() as one, servers.database() as other:
        owner, neighbour = await asyncio.gather(asyncpg.connect(one.owner_dsn), asyncpg.connect(other.owner_dsn))
        try:
            await owner.execute("INSERT INTO schema_migrations (name, digest) VALUES ('9999_mark', 'x')")
            marks = [
                await connection.fetchval("SELECT count(*) FROM schema_migrations WHERE name = '9999_mark'")
                for connection in (owner, neighbour)
            ]
        finally:
            await owner.close()
            await neighbour.close()

    assert marks == [1, 0]


async def test_a_stranger_without_a_grant_cannot_connect(servers: Servers, database: Logins) -> None:
    name = database.owner_dsn.rpartition("/")[2]
    connection = await asyncpg.connect(servers.superuser_dsn)
    try:
        public = await connection.fetchval(
            "SELECT count(*) FROM pg_database, aclexplode(datacl) WHERE datname = $1 AND grantee = 0", name
        )
    finally:
        await connection.close()

    assert public == 0


async def test_an_address_without_any_secret_is_refused() -> None:
    with pytest.raises(LocalStackError, match="no password"):
        await prepare_database("postgresql://somebody@127.0.0.1:1/postgres")


async def test_a_database_name_that_would_need_quoting_is_refused(servers: Servers) -> None:
    with pytest.raises(LocalStackError, match="quoting"):
        await prepare_database(servers.superuser_dsn, database='x"; DROP TABLE jobs')
