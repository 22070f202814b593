"""Kafka's jars: which ones, fetched once per user, and never used unless their hash is the locked one.

`kafka.jars.lock` is made by `python -m barnabas_local.jars`, which resolves the dependencies; starting Kafka resolves
nothing, it only fetches what the lock names.
"""

import fcntl
import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from barnabas_local.errors import LocalStackError
from barnabas_local.paths import user_cache

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# slf4j needs a binding that Kafka's own pom leaves to its distribution; without it the broker logs nothing.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
LOCK = Path(__file__).with_name("kafka.jars.lock")

_FETCHES_AT_ONCE = 8
_FETCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it lies in the cache, as in any Maven repository."""
        return _repository().joinpath(*self.group.split("."), self.artifact, self.version, self.file_name)

    @property
    def file_name(self) -> str:
        """Its file name."""
        return f"{self.artifact}-{self.version}.jar"


def locked_jars() -> list[Jar]:
    """What the lock names, in its order."""
    jars = []
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            coordinate, _, sha256 = line.partition(" sha256:")
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def verified_jars() -> list[Path]:
    """Fetch what the cache lacks, compare every hash, and return the class path. Blocks; takes 0.1 s when cached."""
    jars = locked_jars()
    with ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool:
        if not all(pool.map(_is_sound, jars)):
            with _exclusive():
                # Another checkout may have fetched them while we waited for the lock: look again.
                unsound = [jar for jar, sound in zip(jars, pool.map(_is_sound, jars), strict=True) if not sound]
                list(pool.map(_fetch, unsound))
    return [jar.path for jar in jars]


def _is_sound(jar: Jar) -> bool:
    try:
        with jar.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def _fetch(jar: Jar) -> None:
    # Slow to import, and needed once in the life of a cache.
    from jgo.maven import MavenContext

    jar.path.unlink(missing_ok=True)
    context = MavenContext(repo_cache=_repository(), timeout=_FETCH_SECONDS)
    try:
        context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    except (OSError, RuntimeError, AssertionError) as failure:
        jar.path.unlink(missing_ok=True)
        raise LocalStackError(f"could not fetch {jar.file_name} from Maven Central: {failure}") from failure
    if not _is_sound(jar):
        jar.path.unlink(missing_ok=True)
        raise LocalStackError(f"{jar.file_name} as fetched does not have the locked hash; it was thrown away")


def _repository() -> Path:
    return user_cache() / "maven"


@contextmanager
def _exclusive() -> Iterator[None]:
    """One fetching process per user at a time: files appear in the cache under their final names while they grow."""
    _repository().mkdir(parents=True, exist_ok=True)
    with (_repository() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_lock() -> None:
    """Resolve the dependencies anew and write the lock from the files as fetched."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=_repository(), timeout=_FETCH_SECONDS)
    inputs, transitive = context.resolver.resolve([context.create_dependency(KAFKA)])
    # Not resolved together: the logging project's own bill of materials would pull the Kafka client down to 3.9.
    binding = context.create_dependency(LOG_BINDING)
    lines = {
        f"{d.groupId}:{d.artifactId}:{d.version} sha256:{hashlib.sha256(d.artifact.resolve().read_bytes()).hexdigest()}"
        for d in (*inputs, *transitive, binding)
        if d.scope not in {"test", "provided"} and d.type == "jar"
    }
    head = f"# {KAFKA} and {LOG_BINDING}: every jar by version and hash. Written by `python -m barnabas_local.jars`.\n"
    LOCK.write_text(head + "\n".join(sorted(lines)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_lock()
    sys.stdout.write(f"{LOCK}: {len(locked_jars())} jars\n")
