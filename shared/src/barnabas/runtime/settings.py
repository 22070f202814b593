"""Settings: what every service shares, and the one place where the environment is read.

A service declares its own frozen class on top of `ServiceSettings`; a field's docstring is its manual. A process
refuses to start on an unknown `BARNABAS_*` key, a value out of range or two that contradict, naming the key and a value
that would do. Values of secrets are never repeated.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from barnabas.errors import SettingsError

PREFIX = "BARNABAS_"

KNOWN_KEYS: tuple[str, ...] = (
    # Every process.
    "KAFKA",
    "KAFKA_GROUP_PROTOCOL",
    "POSTGRES",
    "POSTGRES_READ",
    "OPS_HOST",
    "OPS_PORT",
    "DRAIN_SECONDS",
    "LOG_LEVEL",
    "LOG_FORMAT",
    # Several services.
    "LEASE_SECONDS",
    "ALLOW_PRIVATE_ENDPOINTS",
    "QUEUES_MAX",
    "ORDERED_DEAD_LETTERS",
    # Ingest.
    "HTTP_HOST",
    "HTTP_PORT",
    "HTTP_SHARED",
    "HTTP_CONNECTIONS_MAX",
    "REQUEST_SECONDS",
    "QUEUE_BYTES_MAX",
    "POSTGRES_API",
    "ADMIN_KEY",
    # The worker.
    "QUEUES",
    "SLOTS",
    "CHILDREN",
    "SUSPECTS",
    "LOOK_AHEAD_BYTES",
    "CLAIM_ROWS_MAX",
    "TURNS",
    "CANCEL_GRACE_SECONDS",
    # The notifier.
    "CALLS",
    "CALLS_PER_ENDPOINT",
    "CALLS_PER_TENANT",
    "CALL_SECONDS",
    "LANES_ROWS",
    "LANE_ROWS",
    # The retry-scheduler.
    "LEADER_LEASE_SECONDS",
    "REPUBLISH_PER_SECOND",
    "RESULTS_REPLAY_MINUTES",
    "RETENTION_DAYS",
    "TOPIC_REPLICATION",
    "WORKERS_MIN",
    "WORKERS_MAX",
    "WORKERS_DRAIN_SECONDS",
    "WORKERS_UP_SECONDS",
    "WORKERS_DOWN_SECONDS",
    "WORKERS_LOOK_SECONDS",
    "WORKER_RATE",
    # The client, the command line and the local stack; services meet them in a shared environment.
    "API_URL",
    "API_KEY",
    "APP",
    "DATA_DIR",
    "HOST",
    "PORT",
    "WORKERS",
    "INGEST",
    # The tests, which start services with an environment of their own.
    "TEST_CONTAINERS",
)
"""Every key that some part of the product reads, without the prefix.

All processes share one environment, so a key of another service is not a mistake; a key of no service is. A key that a
settings class declares and this list lacks is known to that class's process only: a contract test compares the two.
"""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class ServiceSettings(BaseSettings):
    """What every service reads."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    kafka: Annotated[str, Field(min_length=1, examples=["127.0.0.1:9092"])]
    """Kafka's bootstrap servers, `host:port`, comma-separated."""

    kafka_group_protocol: Annotated[Literal["consumer", "classic"], BeforeValidator(_lower)] = "consumer"
    """How groups share partitions: `consumer` (KIP-848; Kafka 4.0 or newer) or `classic` (cooperative-sticky)."""

    postgres: Annotated[
        SecretStr, Field(min_length=1, examples=["postgresql://barnabas_engine:...@127.0.0.1:5432/barnabas"])
    ]
    """Postgres, as a DSN with the login of this service."""

    postgres_read: SecretStr | None = None
    """A replica for reads that may be a little late; the primary when not set."""

    ops_host: str = "127.0.0.1"
    """Address of the ops port (`/livez`, `/readyz`, `/metrics`). It asks for no credentials: never make it public."""

    ops_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """The ops port; 0 takes a free one and logs it."""

    drain_seconds: Annotated[float, Field(ge=0, le=3_600)] = 30.0
    """After SIGTERM: how long loops may finish what they hold before they are cancelled."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    """The least level that is logged."""

    log_format: Annotated[Literal["json", "console", "auto"], BeforeValidator(_lower)] = "auto"
    """`json` lines, `console` for eyes, or `auto`: console on a terminal, else json."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values come from the constructor only: `load` hands the environment over once, so tests can't inherit one."""
        return (init_settings,)


S = TypeVar("S", bound=BaseSettings)


def known_keys() -> frozenset[str]:
    """Every `BARNABAS_*` key of the product, with the prefix."""
    return frozenset(PREFIX + key for key in KNOWN_KEYS)


def keys_of(settings_class: type[BaseSettings]) -> dict[str, FieldInfo]:
    """The keys that a settings class reads, with the prefix, and the field behind each."""
    return {PREFIX + name.upper(): field for name, field in settings_class.model_fields.items()}


def load(settings_class: type[S], environ: Mapping[str, str]) -> S:
    """Settings from the environment; an empty value counts as not set.

    Raises `SettingsError` with one line per mistake: the key, why, and a value that would do.
    """
    fields = keys_of(settings_class)
    given = {key: value for key, value in environ.items() if key.startswith(PREFIX) and value != ""}
    known = known_keys() | fields.keys()
    mistakes = [_unknown(key, known) for key in sorted(given) if key not in known]
    values: dict[str, Any] = {key.removeprefix(PREFIX).lower(): given[key] for key in fields if key in given}
    try:
        settings = settings_class(**values)
    except ValidationError as error:
        mistakes += [_refused(dict(each), fields, given) for each in error.errors(include_url=False)]
        raise SettingsError("\n".join(mistakes)) from None  # pydantic's own text repeats the values, secrets included
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return settings


def _unknown(key: str, known: frozenset[str] | set[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=1)
    return f"{key} is not a setting of Barnabas" + (f"; did you mean {near[0]}?" if near else "; unset it")


def _refused(error: dict[str, Any], fields: Mapping[str, FieldInfo], given: Mapping[str, str]) -> str:
    reason = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return reason  # a contradiction between two settings: its validator names them and a way out
    key = PREFIX + str(error["loc"][0]).upper()
    field = fields[key]
    if error["type"] == "missing":
        return f"{key} is not set and has no default{_hint(key, field)}"
    shown = key if _is_secret(field) else f"{key}={given.get(key, '')}"
    return f"{shown}: {reason}{_hint(key, field)}"


def _hint(key: str, field: FieldInfo) -> str:
    example = field.examples[0] if field.examples else field.default
    if field.is_required() and not field.examples:
        return ""
    return f"; for example {key}={example}"


def _is_secret(field: FieldInfo) -> bool:
    return "Secret" in str(field.annotation)
