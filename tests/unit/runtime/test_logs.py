import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from pydantic import SecretStr

from barnabas.runtime import logs
from barnabas.runtime.logs import MASK, is_secret_name, redact


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str], *events: str) -> list[dict[str, object]]:
    """What was written of these events: something that another test has left behind may write lines of its own."""
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in written if line["event"] in events]


def test_a_line_is_one_json_object_with_event_level_time_and_service(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="worker", level="info", form="json")
    structlog.get_logger("any").info("attempt_finished", job_id="j1", seconds=0.5)
    (line,) = lines(capsys, "attempt_finished")

    assert line.pop("at")
    assert line == {
        "event": "attempt_finished",
        "level": "info",
        "service": "worker",
        "job_id": "j1",
        "seconds": 0.5,
    }


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="worker", level="warning", form="json")
    structlog.get_logger("any").info("quiet")
    structlog.get_logger("any").warning("loud")

    assert [line["event"] for line in lines(capsys, "quiet", "loud")] == ["loud"]


def test_lines_of_libraries_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="worker", level="info", form="json")
    logging.getLogger("aiohttp").warning("a %s thing", "strange")
    (line,) = lines(capsys, "a strange thing")

    assert line["service"] == "worker"


def test_an_exception_is_in_its_line_without_the_password_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="worker", level="info", form="json")
    try:
        raise OSError("no route to postgresql://engine:hush@db/barnabas")
    except OSError:
        structlog.get_logger("any").exception("database_unreachable")
    (line,) = lines(capsys, "database_unreachable")

    assert "OSError" in str(line["exception"])
    assert "hush" not in str(line)
    assert f"postgresql://engine:{MASK}@db" in str(line["exception"])


def test_the_console_masks_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="worker", level="info", form="console")
    structlog.get_logger("any").info("started", api_key="hush", dsn="hush")

    assert "hush" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "X-API-Key",
        "api_key",
        "adminKey",
        "endpoint_secret",
        "password",
        "postgres_dsn",
        "access_token",
        "credential",
        "key",
        "webhook-signature",
    ],
)
def test_a_field_with_a_secret_name_is_masked(name: str) -> None:
    assert is_secret_name(name)
    assert redact(None, "info", {name: "hush"}) == {name: MASK}


@pytest.mark.parametrize("name", ["event", "job_id", "tenant", "topic", "monkey", "keyboard", "tokens_used_total"])
def test_a_field_with_another_name_is_not(name: str) -> None:
    assert redact(None, "info", {name: "shown"}) == {name: "shown"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://u:p%40ss@h:5/d", f"postgresql://u:{MASK}@h:5/d"),
        ("host=h password=hush dbname=d", f"host=h password={MASK} dbname=d"),
        ("Bearer abc.def", f"Bearer {MASK}"),
        ("made whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", f"made whsec_{MASK}"),
        (SecretStr("hush"), MASK),
        ({"headers": {"authorization": "x", "accept": "y"}}, {"headers": {"authorization": MASK, "accept": "y"}}),
        ([SecretStr("hush"), "Bearer x"], [MASK, f"Bearer {MASK}"]),
        (ValueError("for Bearer abc"), f"ValueError: for Bearer {MASK}"),
        ("http://127.0.0.1:8080/v1/jobs", "http://127.0.0.1:8080/v1/jobs"),
    ],
)
def test_a_secret_is_masked_by_its_shape_wherever_it_is(value: object, shown: object) -> None:
    assert redact(None, "info", {"detail": value}) == {"detail": shown}
