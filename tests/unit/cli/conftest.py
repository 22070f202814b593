"""A place and an environment in which no stack and no key is known, and a server that answers by script."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.command import Command
from tests.unit.client.server import Script, scripted_server

JOB_ID = "0190f3c2-0000-7000-8000-000000000001"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The command line, in an empty directory."""
    for name in [name for name in os.environ if name.startswith("BARNABAS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capfd)


@pytest.fixture
def server() -> Iterator[Script]:
    """An API that answers by script."""
    with scripted_server() as script:
        yield script


@pytest.fixture
def api(server: Script, monkeypatch: pytest.MonkeyPatch, command: Command) -> Script:
    """The same, and the command line knows it from the environment."""
    monkeypatch.setenv("BARNABAS_API_URL", server.url)
    monkeypatch.setenv("BARNABAS_API_KEY", "bk_of_a_tenant")
    monkeypatch.setenv("BARNABAS_ADMIN_KEY", "of-the-administrator")
    return server
