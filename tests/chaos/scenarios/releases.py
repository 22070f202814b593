"""Two releases of the product as directories of source: the last, out of git, and the next: this tree, and a bit more.

A program of a release is an ordinary process whose PYTHONPATH names that release's sources: they come before those
that are installed for development. `proven` asks an interpreter with that very environment where it would import from.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

FROM_VARIABLE = "UPGRADE_FROM"
"""A tag or commit to upgrade from, instead of the newest tag before this commit."""

_ROOT = Path(__file__).parents[3]
# What counts as the last release until there is a tag.
_UNTAGGED = "31b2b9e4a8dbc29c684e1086763d919212686493"
_PARTS = ("shared", "services", "deploy/local", "requirements.lock")
_SOURCES = ("shared/src", "services/*/src", "deploy/local/src")
_MIGRATIONS = "shared/src/barnabas/postgres/migrations"
_LOCK = "requirements.lock"
_PROGRAMS = (
    "barnabas.cli.main",
    "barnabas.postgres.migrate",
    "barnabas_local.database",
    "barnabas_ingest.main",
    "barnabas_worker.main",
    "barnabas_notifier.main",
    "barnabas_retry_scheduler.main",
)
_WHERE = "import importlib.util as u, sys; print(*(u.find_spec(name).origin for name in sys.argv[1:]), sep='\\n')"


@dataclass(frozen=True, slots=True)
class Release:
    """One release, ready to run."""

    name: str
    directory: Path
    python: Path
    """An interpreter that has what this release depends on."""

    @property
    def env(self) -> Mapping[str, str]:
        """What makes a process one of this release. Handlers are the user's, and the same for both."""
        return {"PYTHONPATH": os.pathsep.join(map(str, [*_sources(self.directory), _ROOT]))}

    def proven(self) -> "Release":
        """Fails unless every program of it comes from its own directory."""
        command = [str(self.python), "-c", _WHERE, *_PROGRAMS]
        said = subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, check=True).stdout
        strangers = [origin for origin in said.split() if not Path(origin).is_relative_to(self.directory)]
        assert not strangers, f"release {self.name} would run what isn't its own: {strangers}"
        return self

    def runs_as(self, pid: int) -> bool:
        """Whether a process was started as one of this release."""
        return psutil.Process(pid).environ().get("PYTHONPATH") == self.env["PYTHONPATH"]


def missing() -> str | None:
    """Why there is nothing to upgrade from, in words for whoever asked for it; None if there is."""
    ref = _last()
    if _git("cat-file", "-e", f"{ref}^{{commit}}") is not None:
        return None
    return (
        f"the last release, {ref}, is not in this clone: fetch all of its history, or name another in {FROM_VARIABLE}"
    )


def last_release(directory: Path) -> Release:
    """The sources of the last release, written to `directory`."""
    reason = missing()
    assert reason is None, reason
    directory.mkdir()
    archive = directory.with_suffix(".tar")
    command = ["git", "-C", str(_ROOT), "archive", f"--output={archive}", _last(), *_PARTS]
    subprocess.run(command, capture_output=True, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    return Release("old", directory, _interpreter(directory)).proven()


def next_release(directory: Path, *, adds: Mapping[str, str]) -> Release:
    """This tree as it is, and the migrations that it `adds`, a text by the name that follows its number."""
    for source in _sources(_ROOT):
        shutil.copytree(source, directory / source.relative_to(_ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    migrations = directory / _MIGRATIONS
    newest = max(int(found[1]) for file in migrations.iterdir() if (found := re.match(r"(\d{4})_", file.name)))
    for number, (name, text) in enumerate(adds.items(), newest + 1):
        (migrations / f"{number:04}_{name}.sql").write_text(text)
    return Release("new", directory, Path(sys.executable)).proven()


def _sources(root: Path) -> list[Path]:
    return [folder for pattern in _SOURCES for folder in sorted(root.glob(pattern))]


def _last() -> str:
    named = os.environ.get(FROM_VARIABLE)
    return named or _git("describe", "--tags", "--abbrev=0", "HEAD^") or _UNTAGGED


def _git(*arguments: str) -> str | None:
    """What it says, or None if it refuses or isn't there."""
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _interpreter(directory: Path) -> Path:
    """This one, unless the release was locked to other versions: then one that has those."""
    if (directory / _LOCK).read_bytes() == (_ROOT / _LOCK).read_bytes():
        return Path(sys.executable)
    venv = directory / "venv"
    python = venv / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(directory / _LOCK)],
    ):
        subprocess.run(command, check=True)
    return python
