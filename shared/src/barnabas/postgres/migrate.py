"""Migrations: numbered SQL files, forward only, applied in order under one advisory lock.

Each file is one transaction, recorded with its hash; a merged file never changes. The login is barnabas_owner's.
A file that has to wait for a lock gives up soon and is tried again: nobody has to stop for as long as it waits.
"""

import asyncio
import hashlib
import random
import re
import time
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import asyncpg
import structlog

from barnabas.errors import RejectedError
from barnabas.postgres.connecting import connect

log = structlog.get_logger(__name__)

_LOCK_KEY = 0x6261726E6162  # "barnab": any number that nobody else in this database locks
_CONNECT_SECONDS = 30.0
# Whoever stands in line for a table stops all who come after him, until those before him (a backup, say) are done.
_LOCK_SECONDS = 0.5
_REST_SECONDS = 1.0
_PATIENCE_SECONDS = 900.0
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class MigrationChangedError(RejectedError):
    """A migration that was applied here has other text now."""

    code = "migration_changed"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name, its text and the text's SHA-256."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Hash by which a later change of an applied file is noticed."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations of this release, in order."""
    folder = files("barnabas.postgres") / "migrations"
    found = [Migration(file.name, file.read_text()) for file in folder.iterdir() if _NAME.fullmatch(file.name)]
    return sorted(found, key=lambda migration: migration.name)


async def migrate(owner_dsn: str) -> list[str]:
    """Apply what this database lacks; returns the names applied. Several callers at once wait for each other.

    Raises asyncpg's `LockNotAvailableError` when somebody has held a table for a quarter of an hour.
    """
    connection = await connect(owner_dsn, timeout=_CONNECT_SECONDS)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {
            row["name"]: row["digest"] for row in await connection.fetch("SELECT name, digest FROM schema_migrations")
        }
        done = []
        for migration in migrations():
            if migration.name in applied:
                if applied[migration.name] != migration.digest:
                    raise MigrationChangedError(
                        f"{migration.name} was applied with other text; add a new migration instead"
                    )
                continue
            await _apply(connection, migration)
            done.append(migration.name)
        return done
    finally:
        await connection.close()


async def _apply(connection: Any, migration: Migration) -> None:
    """One file in one transaction, again and again until its locks are free."""
    deadline, told = time.monotonic() + _PATIENCE_SECONDS, False
    while True:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_SECONDS * 1000:.0f}")
                await connection.execute(migration.text)
                await connection.execute(
                    "INSERT INTO schema_migrations (name, digest) VALUES ($1, $2)", migration.name, migration.digest
                )
            return
        except asyncpg.LockNotAvailableError:
            if time.monotonic() > deadline:
                raise
        if not told:
            log.warning("migration_waits", name=migration.name, seconds_max=_PATIENCE_SECONDS)
            told = True
        await asyncio.sleep(_REST_SECONDS * random.uniform(0.5, 1.5))
