"""Two Postgres servers of one's own: a primary and a standby that has what the primary has acknowledged.

The standby is made by `pg_basebackup` and follows synchronously: what a client was told is committed is on both. So a
promotion loses nothing, which is what a managed Postgres with a standby promises.
"""

import asyncio
import os
import pwd
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from barnabas_local.postgres import Postgres
from barnabas_local.postgres_programs import postgres_programs
from tests.support.eventually import eventually

_PROGRAM_SECONDS = 120


@dataclass(slots=True)
class Replicas:
    """Which is which changes with the promotion."""

    primary: Postgres
    standby: Postgres

    @property
    def dsn(self) -> str:
        """Both hosts, whoever of them takes writes."""
        first, second = (urlsplit(server.superuser_dsn) for server in (self.primary, self.standby))
        hosts = f"{first.hostname}:{first.port},{second.hostname}:{second.port}"
        return f"postgresql://postgres:{first.password}@{hosts}/postgres?target_session_attrs=read-write"

    async def follow(self) -> None:
        """From here on a commit waits for the standby."""
        await _alter(self.primary, "synchronous_standby_names = '*'")
        await eventually(self._follows, timeout=60)

    async def demote(self) -> None:
        """The primary stays up and takes no more writes, as one does that its cluster manager has told to step down."""
        await _alter(self.primary, "default_transaction_read_only = on")

    async def promote(self) -> None:
        """The standby takes writes once this has returned."""
        connection = await asyncpg.connect(self.standby.superuser_dsn)
        try:
            assert await connection.fetchval("SELECT pg_promote(true, 120)"), "the standby was not promoted"
        finally:
            await connection.close()

    async def _follows(self) -> bool:
        connection = await asyncpg.connect(self.primary.superuser_dsn)
        try:
            state: str | None = await connection.fetchval("SELECT sync_state FROM pg_stat_replication")
            return state == "sync"
        finally:
            await connection.close()


@asynccontextmanager
async def open_replicas(directory: Path) -> AsyncIterator[Replicas]:
    """A primary and its standby below `directory`, which others may enter; both are stopped at the end."""
    primary = Postgres(directory / "primary", directory / "primary.log", shared_buffers_mb=128)
    standby = Postgres(directory / "standby", directory / "standby.log", shared_buffers_mb=128)
    try:
        await primary.start()
        await asyncio.to_thread(_copy, primary, standby)
        await standby.start()
        yield Replicas(primary, standby)
    finally:
        await standby.stop(at_once=True)
        await primary.stop(at_once=True)


def _copy(primary: Postgres, standby: Postgres) -> None:
    """The standby's data directory, as `pg_basebackup` makes it."""
    made_by = (primary.directory / "data").stat()
    user = pwd.getpwuid(made_by.st_uid).pw_name if os.geteuid() == 0 else None
    data = standby.directory / "data"
    data.mkdir(parents=True, mode=0o700)
    os.chown(data, made_by.st_uid, made_by.st_gid)
    standby.directory.chmod(0o700)
    password = (primary.directory / "superuser.password").read_text()
    (standby.directory / "superuser.password").write_text(password)
    run_program(
        "pg_basebackup", "--pgdata=.", "--write-recovery-conf", f"--dbname={primary.superuser_dsn}", user=user, cwd=data
    )


def run_program(name: str, *arguments: str, user: str | None = None, cwd: Path | None = None) -> None:
    """Run one of Postgres' own programs; fails with what it said."""
    done = subprocess.run(
        [postgres_programs(user) / name, *arguments],
        user=user,
        group=user and pwd.getpwnam(user).pw_gid,
        extra_groups=[] if user else None,
        cwd=cwd,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        capture_output=True,
        timeout=_PROGRAM_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"


async def _alter(server: Postgres, setting: str) -> None:
    connection = await asyncpg.connect(server.superuser_dsn)
    try:
        await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
