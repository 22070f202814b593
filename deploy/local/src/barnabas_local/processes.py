"""Child processes that can't be lost: each is known by id and start time, and dies with the process that started it.

Postgres, Kafka and the services are all started here. A process id alone may belong to a stranger by the time it is
read from a file, so a process is only ever signalled after its start time was compared.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_LOGS_KEPT = 3
_POLL_SECONDS = 0.05
# psutil derives start times from the boot time, which moves a little when the clock is set.
_START_TIME_TOLERANCE_SECONDS = 2.0
# The kernel frees a broker's memory and finishes what it writes first, which takes a while on a busy machine.
_KILL_WAIT_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
# Loaded here because nothing may be imported or loaded between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Identity:
    """One process among all that ever had its id."""

    pid: int
    started_at: float
    """Seconds since the epoch."""

    def find(self) -> psutil.Process | None:
        """The living process, or None if it is gone, even if its id was given to another one."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started_at) <= _START_TIME_TOLERANCE_SECONDS
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(slots=True)
class Child:
    """A running (or ended) child process of ours, in a session of its own."""

    name: str
    identity: Identity
    log: Path
    handle: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The process id."""
        return self.identity.pid

    def exit_code(self) -> int | None:
        """None while it runs; once it ended, whatever it left behind in its session is ended as well."""
        code = self.handle.poll()
        if code is not None:
            _kill_group(self.pid)
        return code

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself; nothing happens if it has ended."""
        self.handle.send_signal(number)

    async def wait(self, timeout: float) -> int | None:
        """Its exit code, or None if it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (code := self.exit_code()) is None and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        return code

    async def stop(self, steps: Sequence[tuple[signal.Signals, float]]) -> int:
        """Send each signal in turn and give it its seconds; kill what is left then. Returns the exit code."""
        for number, seconds in steps:
            self.send(number)
            code = await self.wait(seconds)
            if code is not None:
                return code
        self.kill()
        return self.handle.returncode

    def kill(self) -> None:
        """End the process and its session at once, and wait until it is gone."""
        if self.handle.poll() is None:
            self.handle.kill()
            self.handle.wait(_KILL_WAIT_SECONDS)
        _kill_group(self.pid)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        return tail(self.log, lines)


def spawn(
    name: str,
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start a process; it gets `death_signal` when this one dies, however this one dies (Linux).

    Call it on the main thread: the kernel watches the thread that started the child, not the process.
    `user` is the login to run as, where we are root. The log is appended to.
    """
    with log.open("ab") as output:
        handle = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            user=user,
            group=user and _group_of(user),
            extra_groups=[] if user else None,
            # Ctrl-C in a terminal must reach the supervisor alone, which then stops everything in the right order.
            start_new_session=True,
            preexec_fn=_die_with_parent(death_signal, parent=os.getpid()),  # noqa: PLW1509 - one call into a loaded libc
        )
    try:
        started_at = psutil.Process(handle.pid).create_time()
    except psutil.NoSuchProcess:
        started_at = time.time()
    return Child(name=name, identity=Identity(handle.pid, started_at), log=log, handle=handle)


def rotate(log: Path) -> None:
    """Keep the logs of the last few runs: x.log becomes x.log.1, that one x.log.2, and so on."""
    for age in range(_LOGS_KEPT, 0, -1):
        older = log.with_name(f"{log.name}.{age}")
        newer = log.with_name(f"{log.name}.{age - 1}") if age > 1 else log
        if newer.exists():
            newer.replace(older)


def tail(log: Path, lines: int) -> str:
    """The last lines of a log file, or nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


async def stop_strangers(identities: Sequence[Identity], *, timeout: float) -> list[int]:
    """End processes that an earlier supervisor left behind; returns the ids of those that still lived.

    They get SIGTERM, `timeout` seconds together, then SIGKILL.
    """
    alive = [found for identity in identities if (found := identity.find())]
    ended = [process.pid for process in alive]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + timeout
    while (alive := [process for process in alive if _lives(process)]) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait(_KILL_WAIT_SECONDS)
    return ended


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _group_of(user: str) -> int:
    # Not everywhere: the module only exists where users do.
    import pwd

    return pwd.getpwnam(user).pw_gid


def _die_with_parent(number: signal.Signals, *, parent: int) -> Callable[[], None] | None:
    """What the child runs between fork and exec, where the kernel offers it."""
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        # The parent may have died before the line above: then nobody will ever send the signal.
        if os.getppid() != parent:
            os._exit(1)

    return arm
