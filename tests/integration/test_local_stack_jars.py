"""Kafka's jars: only the locked files are ever used."""

from pathlib import Path

import pytest

from barnabas_local.jars import Jar, locked_jars, verified_jars


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
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for jar, path in kept.items():
        jar.path.parent.mkdir(parents=True, exist_ok=True)
        if jar == smallest:
            jar.path.write_bytes(b"not what the lock names")
        else:
            jar.path.symlink_to(path)

    verified_jars()

    assert smallest.path.read_bytes() == kept[smallest].read_bytes()


def _smallest(jars: list[Jar]) -> Jar:
    verified_jars()
    return min(jars, key=lambda jar: jar.path.stat().st_size)
