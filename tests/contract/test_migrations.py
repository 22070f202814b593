"""Migrations on a real server: in order, once, and never with another text than they were applied with."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import asyncpg
import pytest

from barnabas.postgres import migrate as migrating
from barnabas.postgres.migrate import Migration, MigrationChangedError, migrate, migrations
from barnabas_local.database import Logins, prepare_database
from tests.contract.sources import ROOT
from tests.support.eventually import eventually
from tests.support.servers import Servers

_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"
)


@pytest.fixture
async def empty(servers: Servers) -> AsyncIterator[Logins]:
    """A database with logins and nothing else."""
    name = f"barnabas_empty_{token_hex(6)}"
    try:
        yield await prepare_database(servers.superuser_dsn, database=name)
    finally:
        await servers.drop(name)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def test_they_are_applied_in_order_and_a_second_time_does_nothing(empty: Logins) -> None:
    names = [migration.name for migration in migrations()]

    assert await migrate(empty.owner_dsn) == names
    assert await migrate(empty.owner_dsn) == []
    async with connected(empty.owner_dsn) as owner:
        rows = await owner.fetch("SELECT name FROM schema_migrations ORDER BY applied_at, name")
    assert [row["name"] for row in rows] == names == sorted(names)


async def test_two_that_migrate_at_once_apply_each_file_once(empty: Logins) -> None:
    done = await asyncio.gather(migrate(empty.owner_dsn), migrate(empty.owner_dsn))

    assert sorted(done, key=len) == [[], [migration.name for migration in migrations()]]


async def test_an_applied_file_whose_text_changed_is_refused(empty: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty.owner_dsn)
    first, *others = migrations()
    monkeypatch.setattr(migrating, "migrations", lambda: [Migration(first.name, first.text + "-- \n"), *others])

    with pytest.raises(MigrationChangedError, match=first.name):
        await migrate(empty.owner_dsn)


async def test_a_migration_that_fails_leaves_nothing_behind(empty: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Migration("0001_broken.sql", "CREATE TABLE half (a integer); SELECT 1 / 0;")
    monkeypatch.setattr(migrating, "migrations", lambda: [broken])

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty.owner_dsn)

    async with connected(empty.owner_dsn) as owner:
        assert await owner.fetchval("SELECT to_regclass('half')") is None
        assert await owner.fetchval("SELECT count(*) FROM schema_migrations") == 0


async def test_a_migration_that_has_to_wait_for_a_table_lets_others_past(
    empty: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _migrate_but_for_a_column(empty, monkeypatch)
    async with connected(empty.owner_dsn) as backup, connected(empty.owner_dsn) as other:
        await backup.execute("BEGIN; LOCK TABLE jobs IN ACCESS SHARE MODE")
        migration = asyncio.create_task(migrate(empty.owner_dsn))
        await eventually(lambda: other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        # Behind the migration, which stands behind the backup.
        await other.execute("SET lock_timeout = '20s'; LOCK TABLE jobs IN ACCESS SHARE MODE")

        assert not migration.done()
        await backup.execute("COMMIT")
        assert await migration == ["9999_added.sql"]


async def test_a_migration_gives_up_a_table_that_is_never_free(empty: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    await _migrate_but_for_a_column(empty, monkeypatch)
    monkeypatch.setattr(migrating, "_PATIENCE_SECONDS", 0.0)
    async with connected(empty.owner_dsn) as backup:
        await backup.execute("BEGIN; LOCK TABLE jobs IN ACCESS SHARE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await migrate(empty.owner_dsn)
        await backup.execute("COMMIT")

    assert await migrate(empty.owner_dsn) == ["9999_added.sql"]


async def _migrate_but_for_a_column(empty: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty.owner_dsn)
    known = [*migrations(), Migration("9999_added.sql", "ALTER TABLE jobs ADD COLUMN added text")]
    monkeypatch.setattr(migrating, "migrations", lambda: known)


async def test_a_column_more_on_any_table_breaks_no_query_of_the_release_before(database: Logins) -> None:
    texts = {path.stem: path.read_text() for path in Path(migrating.__file__).with_name("sql").glob("*.sql")}
    broken = []
    async with connected(database.owner_dsn) as owner:
        for row in await owner.fetch(_TABLES):
            change = owner.transaction()
            await change.start()
            await owner.execute(f"ALTER TABLE {row['relname']} ADD COLUMN added text")
            for name, text in texts.items():
                if re.search(rf"\b{row['relname']}\b", text):
                    try:
                        async with owner.transaction():
                            await owner.prepare(text)
                    except asyncpg.PostgresError as error:
                        broken.append(f"{name} by {row['relname']}: {error}")
            await change.rollback()

    assert broken == []


async def test_kept_payloads_have_the_columns_of_payloads_in_their_order(database: Logins) -> None:
    # Functions of merged migrations move and join whole rows: both tables get a column in one migration.
    async with connected(database.owner_dsn) as owner:
        columns = [
            await owner.fetch(
                "SELECT attname, atttypid::regtype::text FROM pg_attribute"
                " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                table,
            )
            for table in ("job_payloads", "job_payloads_kept")
        ]

    assert columns[0] == columns[1]


async def test_every_tenants_table_is_under_forced_row_security(database: Logins) -> None:
    async with connected(database.owner_dsn) as owner:
        rows = await owner.fetch(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        )

    open_to_all = {row["relname"] for row in rows if not (row["relrowsecurity"] and row["relforcerowsecurity"])}
    assert len(rows) > 15
    assert open_to_all == set()


async def test_every_tenants_key_begins_with_the_tenant(database: Logins) -> None:
    async with connected(database.owner_dsn) as owner:
        rows = await owner.fetch(
            "SELECT c.relname,"
            " (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0]) AS first"
            " FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            " AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id')"
        )

    others = {row["relname"] for row in rows if row["first"] != "tenant_id"}
    # A worker takes its requests by its own id.
    assert others == {"cancel_requests"}


async def test_the_jobs_table_has_no_index_but_its_key(database: Logins) -> None:
    async with connected(database.owner_dsn) as owner:
        names = await owner.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'jobs'")

    # Another index would cost every claim and every finish an entry.
    assert [row["indexname"] for row in names] == ["jobs_pkey"]


async def test_no_partition_is_granted_on_its_own(database: Logins) -> None:
    # Row security of the parent doesn't hold for a partition that is read directly.
    async with connected(database.owner_dsn) as owner:
        rows = await owner.fetch(
            "SELECT relname FROM pg_class, unnest(ARRAY['barnabas_api', 'barnabas_engine']) AS login"
            " WHERE relispartition AND relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND has_table_privilege(login, oid, 'SELECT')"
        )

    assert [row["relname"] for row in rows] == []


def test_the_schema_is_kept_beside_the_migrations() -> None:
    assert Path(migrating.__file__).with_name("schema.sql") == ROOT / "shared/src/barnabas/postgres/schema.sql"
