"""shared/src/barnabas/postgres/schema.sql: what all migrations together make, as `pg_dump` sees it.

The day partitions are left out, since they depend on the day; so is what differs between servers and releases of
`pg_dump`. A reader finds each table, index, policy and grant here without going through the migrations.
"""

import asyncio
import os
import re
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from barnabas.errors import RejectedError
from barnabas.postgres.migrate import migrate

_DATABASE = "barnabas_schema"
_DUMP_SECONDS = 60
# job_payloads_20260131 and the like.
_DAY = "*_20[0-9][0-9][0-9][0-9][0-9][0-9]"
# Comments of pg_dump's own, its session settings, and psql's guards, whose text is random.
_NOISE = re.compile(r"^(--.*|SET .*;|SELECT pg_catalog\.set_config\(.*\);|\\(un)?restrict .*)$", re.MULTILINE)

_HEADER = """\
-- The schema that all migrations together make; day partitions are left out.
-- Generated from the migrations by `make generate`. Add a migration instead of changing this.

"""


class DumpError(RejectedError):
    """pg_dump could not read the schema."""

    code = "dump_failed"


def make_schema() -> str:
    """The file's text, from a Postgres that is started for it and thrown away."""
    return asyncio.run(_make_schema())


async def _make_schema() -> str:
    # The local stack is a package of its own, which only a checkout has.
    from barnabas_local.database import prepare_database
    from barnabas_local.postgres import Postgres

    with tempfile.TemporaryDirectory(prefix="barnabas-schema-") as directory:
        server = Postgres(Path(directory) / "postgres", Path(directory) / "postgres.log", shared_buffers_mb=16)
        await server.start()
        try:
            logins = await prepare_database(server.superuser_dsn, database=_DATABASE)
            await migrate(logins.owner_dsn)
            return await asyncio.to_thread(dump_schema, logins.owner_dsn)
        finally:
            await server.stop(at_once=True)


def dump_schema(owner_dsn: str) -> str:
    """The structure of a migrated database, in the form that is checked in; raises `DumpError`."""
    from barnabas_local.postgres_programs import postgres_programs

    parts = urlsplit(owner_dsn)
    # A password in an argument could be read by every login of the machine.
    without_password = urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}"))
    done = subprocess.run(
        [
            postgres_programs(None) / "pg_dump",
            "--schema-only",
            "--no-owner",
            "--no-tablespaces",
            f"--exclude-table={_DAY}",
            f"--dbname={without_password}",
        ],
        env={"PATH": os.defpath, "PGPASSWORD": unquote(parts.password or ""), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=_DUMP_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise DumpError(f"pg_dump: {done.stderr.strip()}")
    return _HEADER + re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", done.stdout)).strip("\n") + "\n"
