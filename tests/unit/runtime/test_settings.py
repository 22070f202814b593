from typing import Annotated

import pytest
from pydantic import Field, SecretStr, model_validator

from barnabas.errors import SettingsError
from barnabas.runtime.settings import PREFIX, ServiceSettings, keys_of, known_keys, load

GOOD = {"BARNABAS_KAFKA": "127.0.0.1:9092", "BARNABAS_POSTGRES": "postgresql://engine:hush@127.0.0.1/barnabas"}


class Example(ServiceSettings):
    """A service's own settings."""

    lease_seconds: Annotated[float, Field(gt=0)] = 10.0
    renew_seconds: float = 1.0
    api_key: SecretStr | None = None

    @model_validator(mode="after")
    def _renewals_fit(self) -> "Example":
        if self.lease_seconds < 3 * self.renew_seconds:
            raise ValueError("BARNABAS_LEASE_SECONDS must be three renewals; for example BARNABAS_LEASE_SECONDS=10")
        return self


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(Example, environ)
    return str(caught.value)


def test_values_come_from_the_given_environment_and_defaults_fill_the_rest() -> None:
    settings = load(Example, GOOD | {"BARNABAS_OPS_PORT": "9101", "BARNABAS_LOG_LEVEL": "WARNING", "HOME": "/tmp"})

    assert settings.kafka == "127.0.0.1:9092"
    assert settings.postgres.get_secret_value() == GOOD["BARNABAS_POSTGRES"]
    assert settings.ops_port == 9101
    assert settings.log_level == "warning"
    assert settings.lease_seconds == 10.0


def test_the_process_environment_itself_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARNABAS_OPS_PORT", "1234")

    assert load(Example, GOOD).ops_port == 0


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    message = refusal(GOOD | {"BARNABAS_LEASE_SECOND": "10"})

    assert message == "BARNABAS_LEASE_SECOND is not a setting of Barnabas; did you mean BARNABAS_LEASE_SECONDS?"


def test_a_key_of_another_service_is_no_mistake() -> None:
    assert "BARNABAS_HTTP_PORT" in known_keys()
    load(Example, GOOD | {"BARNABAS_HTTP_PORT": "8080"})


def test_a_missing_value_is_named_with_an_example() -> None:
    message = refusal({"BARNABAS_POSTGRES": "x"})

    assert message == "BARNABAS_KAFKA is not set and has no default; for example BARNABAS_KAFKA=127.0.0.1:9092"


def test_an_empty_value_counts_as_not_set() -> None:
    assert "BARNABAS_KAFKA is not set" in refusal(GOOD | {"BARNABAS_KAFKA": ""})


def test_a_value_out_of_range_is_named_with_the_reason_and_one_that_would_do() -> None:
    message = refusal(GOOD | {"BARNABAS_LEASE_SECONDS": "-1"})

    assert message.startswith("BARNABAS_LEASE_SECONDS=-1: ")
    assert "greater than 0" in message
    assert message.endswith("for example BARNABAS_LEASE_SECONDS=10.0")


def test_two_that_contradict_are_refused_in_the_validators_words() -> None:
    assert refusal(GOOD | {"BARNABAS_LEASE_SECONDS": "2"}) == (
        "BARNABAS_LEASE_SECONDS must be three renewals; for example BARNABAS_LEASE_SECONDS=10"
    )


def test_every_mistake_has_its_line() -> None:
    lines = refusal({"BARNABAS_OPS_PORT": "70000", "BARNABAS_KAFKAA": "x", "BARNABAS_POSTGRES": "x"}).splitlines()

    assert [line.split()[0].rstrip(":") for line in lines] == [
        "BARNABAS_KAFKAA",
        "BARNABAS_KAFKA",
        "BARNABAS_OPS_PORT=70000",
    ]


def test_a_refusal_never_repeats_a_secret() -> None:
    class Secretive(ServiceSettings):
        """Refuses every secret."""

        token: Annotated[SecretStr, Field(min_length=1_000)]

    with pytest.raises(SettingsError) as caught:
        load(Secretive, GOOD | {"BARNABAS_TOKEN": "hush-hush"})

    assert "hush" not in str(caught.value)
    assert "hush" not in repr(caught.value.__cause__)
    assert "BARNABAS_TOKEN" in str(caught.value)


def test_secrets_are_hidden_when_settings_are_printed() -> None:
    assert "hush" not in repr(load(Example, GOOD))


def test_settings_cannot_be_changed() -> None:
    settings = load(Example, GOOD)

    with pytest.raises(ValueError, match="frozen"):
        settings.ops_port = 1  # type: ignore[misc]  # that it is refused is what is tested


def test_every_shared_setting_is_known_and_has_a_manual() -> None:
    for key, field in keys_of(ServiceSettings).items():
        assert key in known_keys()
        assert key.startswith(PREFIX)
        assert field.description
