"""Finding an app by name, and the reasons when it isn't found."""

import sys
from pathlib import Path

import pytest

from barnabas.sdk.app import RegistrationError
from barnabas.sdk.loading import load_app, load_handlers
from tests.unit.sdk import isolated_app

HERE = "tests.unit.sdk.isolated_app"


def test_an_app_is_found_by_module_and_attribute() -> None:
    assert load_app(f"{HERE}:app") is isolated_app.app
    assert load_app(HERE) is isolated_app.app


def test_a_module_in_the_current_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_handlers.py").write_text("from barnabas.sdk import App\nclass Shop:\n    app = App('shop')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    assert load_app("shop_handlers:Shop.app").name == "shop"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "names no module"),
        (":app", "names no module"),
        ("no_such_module:app", "there is no module 'no_such_module'"),
        ("tests.unit.no_such:app", "there is no module 'tests.unit.no_such'"),
        (f"{HERE}:application", "no attribute 'application'"),
        (f"{HERE}:pid", "is a function, not a barnabas.sdk.App"),
    ],
)
def test_what_is_missing_is_named(name: str, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        load_app(name)


def test_a_module_that_lacks_a_dependency_is_not_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking_handlers.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    with pytest.raises(RegistrationError, match="importing 'lacking_handlers' needs 'no_such_dependency'"):
        load_app("lacking_handlers:app")


def test_a_worker_has_the_built_in_handlers_and_the_apps() -> None:
    assert {"echo", "sleep", "fail", "http_request"} == load_handlers(None).keys()
    assert {"echo", "pid"} < load_handlers(f"{HERE}:app").keys()


def test_an_app_may_replace_a_built_in_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_echo.py").write_text(
        "from barnabas.sdk import App\napp = App()\n@app.handler('echo', timeout=5)\ndef echo(payload): return 'mine'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    assert load_handlers("own_echo:app")["echo"].timeout == 5
