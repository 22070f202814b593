"""Which address is asked with which key."""

import json
from pathlib import Path

import pytest

from barnabas.cli.access import NoAccessError, find_access
from tests.unit.cli.command import Command
from tests.unit.client.server import Reply, Script

NO_JOBS = Reply(200, {"items": [], "next_cursor": None})


def write_stack(directory: Path, **told: object) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "stack.json").write_text(json.dumps({"pids": {"ingest": 1}, **told}))


def test_a_running_stack_in_this_directory_is_found(command: Command, server: Script, tmp_path: Path) -> None:
    write_stack(tmp_path / ".barnabas", api_url=server.url, api_key="bk_stack")
    server.will(NO_JOBS)
    outcome = command("jobs", "list")

    assert (outcome.code, outcome.out) == (0, "No jobs.\n")
    assert server.asked[0].headers["authorization"] == "Bearer bk_stack"


def test_an_administrators_command_takes_the_admin_key(command: Command, server: Script, tmp_path: Path) -> None:
    write_stack(tmp_path / "data", api_url=server.url, api_key="bk_stack", admin_key="secret")
    server.will(NO_JOBS)
    command("tenants", "list", "--data-dir", str(tmp_path / "data"))

    assert server.asked[0].headers["authorization"] == "Bearer secret"


def test_options_win_over_the_environment(api: Script, command: Command) -> None:
    api.will(NO_JOBS)
    command("jobs", "list", "--api-key", "bk_option")

    assert api.asked[0].headers["authorization"] == "Bearer bk_option"


def test_a_stacks_key_never_goes_to_another_address(tmp_path: Path) -> None:
    write_stack(tmp_path, api_url="http://127.0.0.1:8080", api_key="bk_stack")

    with pytest.raises(NoAccessError, match="no key for http://elsewhere"):
        find_access("http://elsewhere", None, tmp_path, kind="api_key")
    assert find_access("http://127.0.0.1:8080/", None, tmp_path, kind="api_key").key == "bk_stack"


def test_a_stack_that_is_down_is_not_asked(command: Command, tmp_path: Path) -> None:
    write_stack(tmp_path / ".barnabas", api_url="http://127.0.0.1:8080", api_key="bk_stack", pids={})
    outcome = command("jobs", "list")

    assert outcome.code == 1
    assert "is down" in outcome.err


def test_without_any_address_the_message_says_how_to_give_one(command: Command) -> None:
    outcome = command("jobs", "list")

    assert outcome.code == 1
    assert "BARNABAS_API_URL" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "http://", "http://a:b"])
def test_an_address_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(NoAccessError, match="http://"):
        find_access(url, "bk_x", tmp_path, kind="api_key")


@pytest.mark.parametrize("key", ["bk_\n", "bk_é", " bk", "bk_\x00"])
def test_a_key_that_is_none_is_refused_without_being_shown(key: str, tmp_path: Path) -> None:
    with pytest.raises(NoAccessError) as refused:
        find_access("http://host", key, tmp_path, kind="api_key")

    assert key not in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_a_stack_file_that_is_none_is_refused_without_being_quoted(content: str, tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(content)

    with pytest.raises(NoAccessError, match=r"stack\.json"):
        find_access(None, None, tmp_path, kind="api_key")
