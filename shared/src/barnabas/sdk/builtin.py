"""The handlers that every worker has: `echo`, `sleep`, `fail` and `http_request`.

They are for trying things out, for measuring and for tests; `http_request` is of use in production too. Their names are
part of the product, and an app may replace each of them by a handler of its own.
"""

import asyncio
import os
import signal
import time
from typing import Annotated, Any, Literal, NoReturn, assert_never

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from barnabas.domain.targets import BadTargetError, parse_target
from barnabas.sdk.app import App
from barnabas.sdk.context import Context
from barnabas.sdk.errors import PermanentError, RetryableError

_DAY_SECONDS = 86_400
# The connection's own business: whoever sets them could make one request look like two.
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
# What a server answers that may answer otherwise in a while.
_PATIENCE = frozenset({408, 425, 429, 500, 502, 503, 504})


class Sleep(BaseModel):
    """The payload of `sleep`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seconds: Annotated[float, Field(ge=0, le=_DAY_SECONDS)]


class Fail(BaseModel):
    """The payload of `fail`: how its first `times` runs end. `times` null means all of them."""

    model_config = ConfigDict(extra="forbid")

    times: Annotated[int, Field(ge=0)] | None = None
    error: Literal["retryable", "permanent", "crash", "hang"] = "retryable"


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[\t\x20-\x7e]{0,4096}$")]


class HttpRequest(BaseModel):
    """The payload of `http_request`. A body that is text is sent as it is, any other as JSON."""

    model_config = ConfigDict(extra="forbid")

    url: str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=64)] = {}
    body: JsonValue = None
    timeout_seconds: Annotated[float, Field(gt=0, le=55)] = 20.0


class HttpResponse(BaseModel):
    """The result of `http_request`; `body` is the first 64 KiB as text."""

    status: int
    content_type: str | None
    body: str
    is_truncated: bool


def builtin_app(*, allow_private_targets: bool = False) -> App:
    """A new app with the built-in handlers; `allow_private_targets` lets `http_request` call addresses not public."""
    app = App("builtin")
    app.handler("echo")(echo)
    app.handler("sleep", timeout=_DAY_SECONDS)(sleep)
    app.handler("fail", timeout=30)(fail)

    @app.handler("http_request", timeout=60)
    async def request(payload: HttpRequest) -> HttpResponse:
        return await http_request(payload, allow_private_targets=allow_private_targets)

    return app


async def echo(payload: Any) -> Any:
    """Return the payload."""
    return payload


async def sleep(payload: Sleep) -> dict[str, float]:
    """Do nothing for so many seconds."""
    await asyncio.sleep(payload.seconds)
    return {"slept_seconds": payload.seconds}


def fail(payload: Fail, ctx: Context) -> dict[str, int]:
    """Fail the first `times` runs in the wished-for way, then succeed.

    A crash kills the process without a word and a hang never returns: the ways in which handlers really fail. A run
    that crashed is not an attempt but a loss, so both are counted.
    """
    runs = ctx.attempt + ctx.losses
    if payload.times is None or runs <= payload.times:
        _fail(payload.error, f"run {runs} fails as it was told to")
    return {"runs": runs}


def _fail(error: Literal["retryable", "permanent", "crash", "hang"], message: str) -> NoReturn:
    match error:
        case "retryable":
            raise RetryableError(message, code="told_to_fail")
        case "permanent":
            raise PermanentError(message, code="told_to_fail")
        case "crash":
            _crash()
        case "hang":
            _hang()
        case _:
            assert_never(error)


async def http_request(payload: HttpRequest, *, allow_private_targets: bool) -> HttpResponse:
    """Make one HTTP call; any answer is a success but those that ask for patience (429, 503 and their kind)."""
    import aiohttp  # here, with the module that uses it: a worker whose jobs never call out starts faster without

    from barnabas.sdk.outgoing import call

    headers = {name: value for name, value in payload.headers.items() if name.lower() not in _OWN_HEADERS}
    body: bytes | None = None
    if isinstance(payload.body, str):
        body = payload.body.encode()
    elif payload.body is not None:
        body = msgspec.json.encode(payload.body)
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
    try:
        answer = await call(
            payload.method,
            parse_target(payload.url, allow_private=allow_private_targets),
            headers=headers,
            body=body,
            timeout_seconds=payload.timeout_seconds,
            allow_private=allow_private_targets,
        )
    except BadTargetError as error:
        raise PermanentError(str(error), code="target_refused") from error
    except TimeoutError as error:
        raise RetryableError(f"no answer within {payload.timeout_seconds:g} s", code="http_timeout") from error
    except aiohttp.ClientError as error:
        # Only the kind: the text of the error tells what it met in the network behind this worker.
        raise RetryableError(f"no answer ({type(error).__name__})", code="http_unreachable") from error
    if answer.status in _PATIENCE:
        raise RetryableError(
            f"the target answered {answer.status}",
            code="http_status",
            retry_after=_retry_after_seconds(answer.headers.get("Retry-After", "")),
        )
    return HttpResponse(
        status=answer.status,
        content_type=answer.headers.get("Content-Type"),
        body=answer.body.decode("utf-8", "replace"),
        is_truncated=answer.is_truncated,
    )


def _retry_after_seconds(value: str) -> float | None:
    # The other form, a date, needs a clock that agrees with the target's: the backoff serves as well.
    return float(value) if value.isascii() and value.isdigit() and len(value) <= 6 else None


def _crash() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    # The signal may need a moment to arrive.
    _hang()


def _hang() -> NoReturn:
    while True:
        time.sleep(3600)
