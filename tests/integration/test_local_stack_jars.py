"""Kafka's jars: only the locked files are ever used."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from barnabas_local.jars import Jar, locked_jars, verified_jars
from barnabas_local.paths import user_cache


def test_every_locked_jar_is_in_the_cache_under_its_hash() -> None:
    paths = verified_jars()

    assert [path.name for path in paths] == [jar.file_name for jar in locked_jars()]
    assert any(path.name == "kafka-server-4.3.1.jar" for path in paths)


def test_the_lock_names_one_version_of_each_artifact_with_a_whole_hash() -> None:
    jars = locked_jars()

    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars)
    assert all(len(jar.sha256) == 64 for jar in jars)


def test_a_jar_that_was_changed_in_the_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest = _smallest(locked_jars())
    kept = {jar: jar.path for jar in locked_jars()}
    repository = user_cache() / "maven"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for jar, path in kept.items():
        jar.path.parent.mkdir(parents=True, exist_ok=True)
        if jar == smallest:
            jar.path.write_bytes(b"not what the lock names")
        else:
            jar.path.symlink_to(path)

    with _served(repository) as central:
        monkeypatch.setattr("jgo.maven._core.DEFAULT_REMOTE_REPOS", {"central": central})
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        verified_jars()

    assert smallest.path.read_bytes() == kept[smallest].read_bytes()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
        """Not a word."""


@contextmanager
def _served(directory: Path) -> Iterator[str]:
    """A Maven repository on this machine: whether the real one answers is not what the test is about."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _smallest(jars: list[Jar]) -> Jar:
    verified_jars()
    return min(jars, key=lambda jar: jar.path.stat().st_size)
