"""Migrations: numbered SQL files, forward only, applied in order under one advisory lock.

Each file is one transaction, recorded with its hash; a merged file never changes. The login is barnabas_owner's.
"""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

from barnabas.errors import RejectedError
from barnabas.postgres.connecting import connect

_LOCK_KEY = 0x6261726E6162  # "barnab": any number that nobody else in this database locks
_CONNECT_SECONDS = 30.0
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
    """Apply what this database lacks; returns the names applied. Several callers at once wait for each other."""
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
            async with connection.transaction():
                await connection.execute(migration.text)
                await connection.execute(
                    "INSERT INTO schema_migrations (name, digest) VALUES ($1, $2)", migration.name, migration.digest
                )
            done.append(migration.name)
        return done
    finally:
        await connection.close()
