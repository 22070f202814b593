"""Shows the logs of the stack's processes, and follows them."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from barnabas_local.errors import LocalStackError
from barnabas_local.paths import Home
from barnabas_local.processes import tail

_POLL_SECONDS = 0.2
_TAIL_LINES = 200


def read_logs(home: Home, name: str | None, *, follow: bool) -> Iterator[tuple[str, str]]:
    """Pairs of process name and line: the last lines of each log, then, if asked, what is added, for ever."""
    logs = {path.stem: path for path in sorted(home.logs.glob("*.log"))}
    if name is not None:
        if name not in logs:
            raise LocalStackError(f"no log called {name}; there are: {', '.join(logs) or 'none'}")
        logs = {name: logs[name]}
    sizes = {each: path.stat().st_size for each, path in logs.items()}
    for each, path in logs.items():
        for line in tail(path, _TAIL_LINES).splitlines():
            yield each, line
    if follow:
        yield from _follow(list(logs.items()), sizes)


def _follow(logs: Sequence[tuple[str, Path]], offsets: dict[str, int]) -> Iterator[tuple[str, str]]:
    while True:
        quiet = True
        for name, path in logs:
            if not path.exists():
                continue
            with path.open("rb") as file:
                # A new run begins a new file.
                if file.seek(0, 2) < offsets[name]:
                    offsets[name] = 0
                file.seek(offsets[name])
                whole, newline, _ = file.read().rpartition(b"\n")
            if newline:
                quiet = False
                offsets[name] += len(whole) + 1
                for line in whole.decode(errors="replace").splitlines():
                    yield name, line
        if quiet:
            time.sleep(_POLL_SECONDS)
