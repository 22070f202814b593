"""Logging: constant event names with fields, as JSON lines, or coloured on a terminal.

Set up once at the start of a process; libraries that use the standard logging module end up in the same lines. The last
step before the renderer masks whatever looks like a secret, by the field's name or by the value's shape.
"""

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal

import msgspec
import structlog
from pydantic import SecretBytes, SecretStr

MASK = "***"

_SECRET_WORDS = frozenset(
    {
        "authorization",
        "secret",
        "secrets",
        "key",
        "keys",
        "password",
        "passwd",
        "dsn",
        "token",
        "credential",
        "credentials",
    }
    | {"apikey", "cookie", "signature"}
)
_WORD = re.compile(r"[A-Za-z][a-z0-9]*")
# A DSN's password, a bearer credential, an endpoint's secret: shapes that betray themselves in any text, a traceback
# included.
_SECRET_SHAPES = (
    (re.compile(r"(://[^:/@\s]*):[^@/\s]+@"), rf"\1:{MASK}@"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s'\",]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(password=)[^\s'\"&]+"), rf"\1{MASK}"),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), f"whsec_{MASK}"),
)
# Deeper nesting than this is no log field, and bounds what a cyclic value could cost.
_DEPTH_MAX = 4


def configure(
    *, service: str, level: Literal["debug", "info", "warning", "error"], form: Literal["json", "console", "auto"]
) -> None:
    """Send every log line of this process to standard output, from `level` up, each with the service's name."""
    number = getattr(logging, level.upper())
    console = form == "console" or (form == "auto" and sys.stdout.isatty())
    shared: list[Callable[..., Any]] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _naming(service),
    ]
    # The traceback becomes text before it is masked; the plain formatter is the one that leaves that text alone.
    render: Callable[..., Any] = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    if not console:
        render = structlog.processors.JSONRenderer(serializer=_json)
    last: list[Callable[..., Any]] = [structlog.processors.format_exc_info, redact, render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak up from INFO only when asked for debug: their chatter isn't ours to explain.
    root.setLevel(number if level in ("debug", "error") else logging.WARNING)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask secrets in a log event; structlog calls it as a processor."""
    for name, value in event.items():
        event[name] = MASK if is_secret_name(name) and value is not None else _masked(value, depth=0)
    return event


def is_secret_name(name: str) -> bool:
    """Whether a field of this name must never be shown: one of its words says so (`api_key`, `X-API-Key`, `dsn`)."""
    return not _SECRET_WORDS.isdisjoint(_words(name))


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)} | {name.lower()}


def _masked(value: Any, *, depth: int) -> Any:
    if isinstance(value, str):
        for shape, replacement in _SECRET_SHAPES:
            value = shape.sub(replacement, value)
        return value
    if isinstance(value, (SecretStr, SecretBytes)):
        return MASK
    if value is None or isinstance(value, (int, float, bool)):
        return value
    if depth >= _DEPTH_MAX:
        return "..."
    if isinstance(value, Mapping):
        return {
            str(name): MASK if is_secret_name(str(name)) else _masked(each, depth=depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(each, depth=depth + 1) for each in value]
    if isinstance(value, BaseException):
        return _masked(f"{type(value).__name__}: {value}", depth=depth)
    return value


def _naming(service: str) -> Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]:
    def add_service(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add_service


def _json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
