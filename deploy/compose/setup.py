"""Prepares the servers of a compose stack: logins, database, migrations, topics.

Runs once before the services, and again with every `docker compose up`: what is there already stays as it is. The
logins' addresses go into two files, each in the volume of those who may use it; the owner's is kept nowhere.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from barnabas.errors import BarnabasError
from barnabas.kafka.admin import ensure_topics
from barnabas.postgres.migrate import migrate
from barnabas_local.database import DATABASE, prepare_database

T = TypeVar("T")

# A healthy container may still refuse the first connections.
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 1.0


async def prepare(
    environ: Mapping[str, str], *, database: str = DATABASE, patience_seconds: float = _PATIENCE_SECONDS
) -> list[str]:
    """Bring both servers to the state that the services need; returns one sentence per change."""
    user, password = environ.get("POSTGRES_USER", "postgres"), quote(environ["POSTGRES_PASSWORD"], safe="")
    superuser_dsn = f"postgresql://{user}:{password}@{environ['POSTGRES_ADDRESS']}/postgres"
    logins = await _patiently(lambda: prepare_database(superuser_dsn, database=database), seconds=patience_seconds)
    directory = Path(environ.get("SETTINGS_FILES", "/run/barnabas"))
    _write_private(directory / "engine" / "BARNABAS_POSTGRES", logins.engine_dsn)
    _write_private(directory / "api" / "BARNABAS_POSTGRES_API", logins.api_dsn)
    changes = [f"applied {name}" for name in await migrate(logins.owner_dsn)]
    return changes + await _patiently(lambda: ensure_topics(environ["BARNABAS_KAFKA"]), seconds=patience_seconds)


async def _patiently(step: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await step()
        except BarnabasError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step: a service that starts meanwhile reads the old address or the new one."""
    new = path.with_name(f".{path.name}")  # a name that the entrypoint doesn't take for a setting
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def main() -> int:
    """Prepare, say what was done; 1 when a server can't be used."""
    try:
        changes = asyncio.run(prepare(os.environ))
    except BarnabasError as failure:
        sys.stderr.write(f"barnabas setup: {failure}\n")
        return 1
    for change in changes or ["nothing to do"]:
        sys.stdout.write(f"barnabas setup: {change}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
