"""A real Postgres 18, durable, loopback only, as an ordinary process; from a wheel, so nothing has to be installed.

Postgres refuses to run as root. There it runs as an unprivileged login that may not even enter the directories above
its data (a checkout below root's home): we enter for it, and it reaches its data as its own working directory.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
import psutil

from barnabas_local import ports
from barnabas_local.errors import LocalStackError, ServerStartError
from barnabas_local.paths import write_private
from barnabas_local.postgres_programs import postgres_programs
from barnabas_local.processes import Child, spawn, tail

NAME: Final = "postgres"

_INITDB_SECONDS = 60
# Replaying eight gigabytes of WAL after a kill -9 takes its time.
_READY_SECONDS = 120
# Fast shutdown, then immediate: a client that never leaves must not hold the stack up.
_STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))
_STOP_STEPS_AT_ONCE = ((signal.SIGQUIT, 5.0),)
_POLL_SECONDS = 0.05
_LOGINS_IF_ROOT = ("postgres", "nobody")
# After a kill -9 the old backends hold the shared memory until each has noticed.
_ORPHANS_SECONDS = 10

_SETTINGS = {
    "listen_addresses": ports.LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    # lz4 would be cheaper, but the wheel is built without it.
    "wal_compression": "pglz",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # Waits that long are findings; the setting costs nothing until then.
    "log_lock_waits": "on",
}


@dataclass(slots=True)
class Postgres:
    """One server with its directory. `start`, `stop` and `kill` may follow each other in any order."""

    directory: Path
    log: Path
    port: int = 0
    """0 = a free one, kept for as long as this object lives."""
    shared_buffers_mb: int = 512
    child: Child | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """Its name in logs and states."""
        return NAME

    @property
    def title(self) -> str:
        """What it is, for people."""
        return "Postgres 18"

    @property
    def superuser_dsn(self) -> str:
        """The superuser's address, with the password; valid once `start` has returned."""
        password = self._password_file.read_text(encoding="utf-8").strip()
        return f"postgresql://postgres:{password}@{ports.LOOPBACK}:{self.port}/postgres"

    async def start(self) -> None:
        """Start the server (crash recovery included) and return when it takes connections."""
        user = self._user()
        programs = await asyncio.to_thread(postgres_programs, user)
        if self._data.exists():
            await self._clear_leftovers()
        else:
            await asyncio.to_thread(self._initdb, programs, user)
        if self.port:
            ports.require_free(self.port, wanted_by="Postgres")
        else:
            self.port = ports.free_port()
        settings = _SETTINGS | {"port": str(self.port), "shared_buffers": f"{self.shared_buffers_mb}MB"}
        self.child = spawn(
            NAME,
            [str(programs / "postgres"), "-D", _here(self._data), *(f"--{k}={v}" for k, v in settings.items())],
            log=self.log,
            cwd=self._data,
            user=user,
            env=_environment(),
            # SIGTERM would wait for the last client to leave; this is the fast shutdown.
            death_signal=signal.SIGINT,
        )
        await self._answers(self.child)

    async def stop(self, *, at_once: bool = False) -> None:
        """Shut down with a checkpoint, or at once where nobody will want the data again."""
        if self.child is not None:
            await self.child.stop(_STOP_STEPS_AT_ONCE if at_once else _STOP_STEPS)

    def kill(self) -> None:
        """kill -9 of the postmaster; its backends end as they notice."""
        if self.child is not None:
            self.child.kill()

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _password_file(self) -> Path:
        return self.directory / "superuser.password"

    def _user(self) -> str | None:
        """The login to run as: None unless we are root; a data directory keeps the one that made it."""
        if os.geteuid() != 0:
            return None
        if self._data.exists():
            return pwd.getpwuid(self._data.stat().st_uid).pw_name
        for name in _LOGINS_IF_ROOT:
            with suppress(KeyError):
                return pwd.getpwnam(name).pw_name
        raise LocalStackError(f"Postgres does not run as root and there is no login {' or '.join(_LOGINS_IF_ROOT)}")

    def _initdb(self, programs: Path, user: str | None) -> None:
        """Make the data directory; one that was only half made is never taken for a whole one."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.directory))
        password = secrets.token_urlsafe(32)
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb") as writer:
            if user is not None:
                owner = pwd.getpwnam(user)
                os.chown(new, owner.pw_uid, owner.pw_gid)
                # initdb opens it by name, which asks whose pipe it is.
                os.fchown(reader.fileno(), owner.pw_uid, owner.pw_gid)
            writer.write(password.encode() + b"\n")
            writer.close()
            options = [
                "--username=postgres",
                "--auth=scram-sha-256",
                "--pwfile=/dev/stdin",
                "--encoding=UTF8",
                # The same order and case rules on every machine, whatever its locales.
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ]
            with self.log.open("ab") as output:
                done = subprocess.run(
                    [programs / "initdb", "-D", _here(new), *options],
                    stdin=reader,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=new,
                    user=user,
                    group=user and pwd.getpwnam(user).pw_gid,
                    extra_groups=[] if user else None,
                    env=_environment(),
                    timeout=_INITDB_SECONDS,
                    check=False,
                )
        if done.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise ServerStartError(name=NAME, reason="initdb failed", log_tail=tail(self.log, 10))
        write_private(self._password_file, password + "\n")
        new.rename(self._data)

    async def _clear_leftovers(self) -> None:
        """Take `postmaster.pid` of a dead server out of the way, and end a living one that lost its supervisor.

        Postgres itself only asks whether the process id in the file is in use, which a stranger's may be by now.
        """
        lock_file = self._data / "postmaster.pid"
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while time.monotonic() < deadline:
            remaining = [process for process in psutil.process_iter(["name"]) if self._belongs_here(process)]
            if not remaining:
                lock_file.unlink(missing_ok=True)
                return
            for process in remaining:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    # A postmaster stops its backends; a backend without one rolls back and leaves.
                    process.send_signal(signal.SIGQUIT)
            await asyncio.sleep(_POLL_SECONDS)
        raise ServerStartError(name=NAME, reason="an older server still holds its data", log_tail="")

    def _belongs_here(self, process: psutil.Process) -> bool:
        try:
            return process.info["name"] == "postgres" and Path(process.cwd()).samefile(self._data)
        except (psutil.Error, OSError):
            return False

    async def _answers(self, child: Child) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if child.exit_code() is not None:
                raise ServerStartError(name=NAME, reason="it ended at once", log_tail=child.log_tail())
            try:
                connection = await asyncpg.connect(self.superuser_dsn, timeout=5)
            except (OSError, asyncpg.CannotConnectNowError, TimeoutError, asyncpg.ConnectionDoesNotExistError):
                await asyncio.sleep(_POLL_SECONDS)
            else:
                await connection.close()
                return
        raise ServerStartError(name=NAME, reason=f"no answer within {_READY_SECONDS} s", log_tail=child.log_tail())


def _here(directory: Path) -> str:
    """The name under which a program started inside `directory` reaches it, parents that bar its way or not."""
    return "/proc/self/cwd" if sys.platform == "linux" else str(directory)


def _environment() -> dict[str, str]:
    """Nothing of our own: PG* variables of a developer's shell must not steer the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
