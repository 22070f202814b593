"""Where things lie on disk: one directory per checkout for data and secrets, one cache per user for what is fetched."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The stack's own directory (`.barnabas`): only its owner may look into it."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "lock"

    @property
    def stack(self) -> Path:
        """What other programs read: addresses, keys, process ids."""
        return self.root / "stack.json"

    @property
    def processes(self) -> Path:
        """Every process that was started, with its start time, from the moment it was started."""
        return self.root / "processes.json"

    @property
    def ports(self) -> Path:
        """The ports of the last run, taken again if they are still free."""
        return self.root / "ports.json"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.root / "logs"

    @property
    def kafka(self) -> Path:
        """Kafka's data and configuration."""
        return self.root / "kafka"

    @property
    def postgres(self) -> Path:
        """Postgres's data and the superuser's password."""
        return self.root / "postgres"

    def log(self, name: str) -> Path:
        """The log of the process called `name`."""
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Create the directories; a second call changes nothing."""
        for directory in (self.root, self.logs):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)


def user_cache() -> Path:
    """The directory below which fetched things are kept for all checkouts of this user."""
    configured = os.environ.get("XDG_CACHE_HOME")
    if configured and Path(configured).is_absolute():
        return Path(configured) / "barnabas"
    try:
        home = Path.home()
    except RuntimeError:
        # Neither HOME nor an entry in the user database: some containers run so.
        return Path(tempfile.gettempdir()) / f"barnabas-cache-{os.getuid()}"
    return home / ".cache" / "barnabas"


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read, at once or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)
