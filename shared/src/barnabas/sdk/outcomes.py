"""From what a handler did to how its attempt ended: payloads in, results out, exceptions into outcomes.

Plain functions without clock or threads, used on the event loop, in handler threads and in child processes alike. What
a tenant will read is bounded here, and never repeats a payload's values.
"""

import asyncio
import functools
import re
import typing
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from barnabas.domain.attempts import Cancelled, Outcome, Raised, Snoozed, Succeeded
from barnabas.sdk.app import Handler
from barnabas.sdk.context import Context
from barnabas.sdk.errors import CancelledByRequest, HandlerError, PermanentError, RetryableError, Snooze

RESULT_BYTES_MAX = 1 << 20
"""1 MiB, like a payload; larger results belong in a store of their own, with a link to them as the result."""

MESSAGE_BYTES_MAX = 2048
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
# More than these tell the author nothing new, and the message is cut at 2 KiB anyway.
_MISTAKES_SHOWN = 10


class PayloadInvalidError(Exception):
    """The payload does not fit the handler's model; the message has pointers and reasons, no values."""


# pydantic's own kinds of mistake; a validator may bring others, with a text of its own that may quote the value.
_KNOWN_KINDS = frozenset(typing.get_args(ErrorType))
# With one of these in its context a message repeats what a parser or a validator said, or a part of the value.
_QUOTING = frozenset({"error", "tag"})


def decode_payload(handler: Handler, raw: bytes) -> Any:
    """The argument of the handler; raises `PayloadInvalidError`."""
    try:
        return handler.decode(raw)
    except ValidationError as error:
        raise PayloadInvalidError(_mistakes(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadInvalidError(f"not JSON: {error}") from None


def payload_invalid(error: PayloadInvalidError) -> Raised:
    """A payload that doesn't fit won't fit at the next attempt either."""
    return Raised(code="payload_invalid", message=_shortened(str(error)), retryable=False)


def outcome_of_value(value: object) -> Outcome:
    """How an attempt ended whose handler returned `value`.

    A number that JSON lacks (NaN, infinity) becomes null, as in JavaScript.
    """
    if value is None:
        return Succeeded(None)
    if isinstance(value, Snooze):
        return Snoozed(value.seconds)
    try:
        result = _encoder.encode(value)
    except Exception as error:  # noqa: BLE001 - whatever a value's own code raises here means the same
        return Raised(
            code="result_unserializable",
            message=_shortened(f"the result can't be written as JSON: {_text(error)}"),
            retryable=False,
        )
    if len(result) > RESULT_BYTES_MAX:
        return Raised(
            code="result_too_large",
            message=f"the result has {len(result):,} bytes of JSON, {RESULT_BYTES_MAX:,} are allowed",
            retryable=False,
        )
    return Succeeded(result)


def outcome_of_error(error: BaseException) -> Outcome:
    """How an attempt ended whose handler raised `error`."""
    if isinstance(error, Snooze):
        return Snoozed(error.seconds)
    if isinstance(error, CancelledByRequest):
        return Cancelled()
    code = error.code if isinstance(error, HandlerError) else None
    if code is None or not _CODE.fullmatch(code):
        code = _snake_case(type(error).__name__)
    return Raised(
        code=code,
        message=_shortened(_text(error)),
        retryable=not isinstance(error, PermanentError),
        retry_after=error.retry_after_seconds if isinstance(error, RetryableError) else None,
    )


def call_sync(handler: Handler, raw: bytes, ctx: Context) -> Outcome:
    """Run a sync handler from payload to outcome; for a handler thread, or the main thread of a child process."""
    try:
        payload = decode_payload(handler, raw)
    except PayloadInvalidError as error:
        return payload_invalid(error)
    try:
        value = handler.function(payload, ctx) if handler.takes_context else handler.function(payload)
    # SystemExit is a handler that called sys.exit(): an error of the handler, not the end of the worker.
    # A sync handler may run a loop of its own, and what was cancelled in there is no cancellation of ours.
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - the boundary around handlers
        return outcome_of_error(error)
    return outcome_of_value(value)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def _mistakes(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    lines = [f"{_pointer(each['loc'])}: {_reason(each)}" for each in found[:_MISTAKES_SHOWN]]
    if len(found) > _MISTAKES_SHOWN:
        lines.append(f"and {len(found) - _MISTAKES_SHOWN} more")
    return "\n".join(lines)


def _reason(mistake: ErrorDetails) -> str:
    kind = mistake["type"]
    # What the JSON parser says is a place in the text and what it expected there.
    if kind == "json_invalid" or (kind in _KNOWN_KINDS and _QUOTING.isdisjoint(mistake.get("ctx", ()))):
        return mistake["msg"]
    return kind


def _pointer(location: tuple[int | str, ...]) -> str:
    """RFC 6901; the payload itself is shown as `payload`, because its pointer is empty."""
    if not location:
        return "payload"
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


@functools.lru_cache(maxsize=256)
def _snake_case(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    code = re.sub(r"[^a-z0-9_]", "", words.lower()).lstrip("_0123456789")[:64]
    return code or "error"


def _text(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - a broken __str__ must not cost the outcome
        return type(error).__name__


def _shortened(text: str) -> str:
    """At most 2 KiB of UTF-8 that Postgres can store: no NUL, no lone surrogate."""
    encoded = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return encoded.decode()
    return encoded[: MESSAGE_BYTES_MAX - 3].decode("utf-8", "ignore") + "\N{HORIZONTAL ELLIPSIS}"
