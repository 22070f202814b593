"""Settings: what each process reads, what all of them know, and that each key is explained."""

import re

import pytest

from barnabas.generate.settings_page import command_options, settings_classes
from barnabas.runtime.settings import KNOWN_KEYS, PREFIX, ServiceSettings, keys_of, known_keys
from tests.contract.sources import ROOT

_CLASSES = settings_classes()
# Keys that are read elsewhere than by a settings class or an option: where, so that the list can't rot.
_READ_ELSEWHERE = {"TEST_CONTAINERS": "tests/support/servers.py"}
every_class = pytest.mark.parametrize("name", _CLASSES)


def test_every_process_knows_exactly_the_keys_that_something_reads() -> None:
    read = {key for settings_class in _CLASSES.values() for key in keys_of(settings_class)}
    read |= {key for key, _, _ in command_options()}
    read |= {PREFIX + key for key in _READ_ELSEWHERE}

    assert read - known_keys() == set(), "add to KNOWN_KEYS: else other processes refuse to start beside this one"
    assert known_keys() - read == set(), "nothing reads these any more"
    assert len(KNOWN_KEYS) == len(set(KNOWN_KEYS))


@pytest.mark.parametrize(("key", "path"), _READ_ELSEWHERE.items())
def test_a_key_that_is_read_elsewhere_is_read_there(key: str, path: str) -> None:
    assert PREFIX + key in (ROOT / path).read_text()


@every_class
def test_every_setting_is_explained(name: str) -> None:
    silent = [key for key, field in keys_of(_CLASSES[name]).items() if not (field.description or "").endswith(".")]

    assert silent == []


@every_class
def test_a_setting_without_a_default_shows_a_value_that_would_do(name: str) -> None:
    bare = [key for key, field in keys_of(_CLASSES[name]).items() if field.is_required() and not field.examples]

    assert bare == []


@every_class
def test_settings_are_frozen_and_refuse_what_they_do_not_know(name: str) -> None:
    settings_class = _CLASSES[name]

    assert issubclass(settings_class, ServiceSettings)
    assert settings_class.model_config["frozen"] is True
    assert settings_class.model_config["extra"] == "forbid"


@every_class
def test_every_number_has_a_lowest_value(name: str) -> None:
    unbounded = [
        key
        for key, field in keys_of(_CLASSES[name]).items()
        if field.annotation in {int, float}
        and not any(type(each).__name__ in {"Ge", "Gt", "Interval"} for each in field.metadata)
    ]

    assert unbounded == []


@every_class
def test_secrets_are_hidden_when_settings_are_shown(name: str) -> None:
    # A password, or an address that holds one, must not be in a log because somebody logged the settings.
    fields = keys_of(_CLASSES[name])
    delicate = [key for key in fields if re.search(r"POSTGRES|PASSWORD|SECRET|TOKEN|_KEY$", key)]

    assert delicate
    assert [key for key in delicate if "SecretStr" not in str(fields[key].annotation)] == []


def test_settings_that_several_processes_share_agree() -> None:
    disagreeing = []
    for one_name, one in _CLASSES.items():
        for other_name, other in _CLASSES.items():
            mine, theirs = keys_of(one), keys_of(other)
            disagreeing += [
                f"{key}: {one_name} and {other_name}"
                for key in mine.keys() & theirs.keys()
                if (mine[key].default, mine[key].annotation, str(mine[key].metadata))
                != (theirs[key].default, theirs[key].annotation, str(theirs[key].metadata))
            ]

    assert disagreeing == []
