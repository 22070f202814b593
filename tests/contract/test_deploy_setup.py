"""What `setup` does to the servers of a compose stack, on real ones."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
from deploy.compose.setup import prepare

from barnabas.contract import topics
from barnabas.errors import BarnabasError
from barnabas.kafka.admin import topic_ids
from barnabas.postgres.migrate import migrations
from barnabas_local import ports
from tests.support.servers import Servers


@pytest.fixture
async def name(servers: Servers) -> AsyncIterator[str]:
    """The name of a database of one's own, which doesn't exist yet."""
    name = f"barnabas_test_{token_hex(6)}"
    yield name
    await servers.drop(name)


@pytest.fixture
def environ(servers: Servers, tmp_path: Path) -> dict[str, str]:
    """What compose gives to the container."""
    for directory in ("engine", "api"):
        (tmp_path / directory).mkdir()
    parts = urlsplit(servers.superuser_dsn)
    assert parts.username is not None
    return {
        "BARNABAS_KAFKA": servers.kafka,
        "POSTGRES_ADDRESS": parts.netloc.rpartition("@")[2],
        "POSTGRES_USER": parts.username,
        "POSTGRES_PASSWORD": unquote(parts.password or ""),
        "SETTINGS_FILES": str(tmp_path),
    }


async def test_setup_makes_what_the_services_need_and_a_second_one_changes_nothing(
    servers: Servers, environ: dict[str, str], name: str
) -> None:
    first = await prepare(environ, database=name)
    second = await prepare(environ, database=name)
    _, known = await topic_ids(servers.kafka)

    assert {f"applied {migration.name}" for migration in migrations()} <= set(first)
    assert second == []
    assert known.keys() == topics.BY_NAME.keys()


async def test_setup_leaves_each_login_where_its_services_find_it_and_the_owner_nowhere(
    environ: dict[str, str], name: str, tmp_path: Path
) -> None:
    await prepare(environ, database=name)
    files = _files(tmp_path)
    logins = {}
    for key, path in files.items():
        connection = await asyncpg.connect(path.read_text(encoding="utf-8"))
        logins[key] = await connection.fetchval("SELECT current_user")
        await connection.close()

    assert logins == {
        "engine/BARNABAS_POSTGRES": "barnabas_engine",
        "api/BARNABAS_POSTGRES_API": "barnabas_api",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}


async def test_setup_gives_up_on_a_server_that_never_comes(environ: dict[str, str]) -> None:
    environ["POSTGRES_ADDRESS"] = f"127.0.0.1:{ports.free_port()}"

    with pytest.raises(BarnabasError, match="can't be used"):
        await prepare(environ, patience_seconds=0.0)


def _files(directory: Path) -> dict[str, Path]:
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
