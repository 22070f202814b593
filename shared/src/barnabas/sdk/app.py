"""The app: the handlers of a worker, by job type.

A handler is a plain function of the payload (and, if it wants one, the context); registering it changes nothing about
it. What can be wrong with a handler is said when it is registered, not when the first job arrives.
"""

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, TypeAdapter

from barnabas.domain.backoff import RetryPolicy
from barnabas.sdk.context import Context

F = TypeVar("F", bound=Callable[[Any], Any] | Callable[[Any, Context], Any])

# The same shape that the API accepts for a job's type.
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_DAY_SECONDS = 86_400
# The default backoff waits three times: 30 s, 60 s, 120 s.
_MAX_ATTEMPTS = 4
_TIMEOUT_SECONDS = 60.0


class RegistrationError(Exception):
    """A handler can't be registered, or an app can't be loaded: the message says which and why."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered handler: what runs for a job type, and the limits where a job names none of its own."""

    type: str
    function: Callable[..., Any]
    is_async: bool
    takes_context: bool
    payload_model: Any
    """The annotation of the payload, or None where the handler takes raw JSON values."""
    decode: Callable[[bytes], Any]
    """Payload bytes to the handler's argument; raises what `payload_model` raises."""
    max_attempts: int
    timeout: float
    """Seconds that one attempt may take."""
    retry: RetryPolicy
    isolate: Literal["process"] | None


class App:
    """A set of handlers, by job type."""

    def __init__(self, name: str = "app") -> None:
        self.name = name
        self._handlers: dict[str, Handler] = {}

    def __repr__(self) -> str:
        return f"App({self.name!r}, {len(self._handlers)} handlers)"

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The registered handlers, by job type; a live, read-only view."""
        return MappingProxyType(self._handlers)

    def handler(
        self,
        job_type: str,
        *,
        max_attempts: int = _MAX_ATTEMPTS,
        timeout: float = _TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        isolate: Literal["process"] | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function for `job_type`; the function itself stays as it is.

        It takes the payload and, as an optional second parameter, the `Context`. A payload annotated with a pydantic
        model (or anything that pydantic can check) is checked before the function runs; without annotation it is a raw
        JSON value. It returns a model, a JSON value or None. A sync function runs in a thread, or with
        `isolate="process"` in a process that is really killed at the end of its `timeout` (seconds). Limits that a job
        brings itself win over these.
        """
        _check_limits(job_type, max_attempts=max_attempts, timeout=timeout, isolate=isolate)

        def register(function: F) -> F:
            known = self._handlers.get(job_type)
            if known is not None:
                raise RegistrationError(
                    f"job type {job_type!r} already has the handler {_name(known.function)}; "
                    f"{_name(function)} needs another type"
                )
            payload_model, takes_context = _signature(function, job_type)
            self._handlers[job_type] = Handler(
                type=job_type,
                function=function,
                is_async=_is_async(function),
                takes_context=takes_context,
                payload_model=payload_model,
                decode=_decoder(payload_model, function, job_type),
                max_attempts=max_attempts,
                timeout=float(timeout),
                retry=RetryPolicy() if retry is None else retry,
                isolate=isolate,
            )
            return function

        return register


def _check_limits(job_type: str, *, max_attempts: int, timeout: float, isolate: object) -> None:
    if not isinstance(job_type, str):
        raise RegistrationError('@app.handler needs the job type as its first argument: @app.handler("scoring")')
    if not _TYPE.fullmatch(job_type):
        raise RegistrationError(
            f"job type {job_type!r} must be 1 to 128 characters of A-Z a-z 0-9 . _ : / - "
            "and begin with a letter or digit"
        )
    if not 1 <= max_attempts <= 100:
        raise RegistrationError(f"job type {job_type!r}: max_attempts must be between 1 and 100, not {max_attempts!r}")
    # Written so that NaN fails it too.
    if not 0 < timeout <= _DAY_SECONDS:
        raise RegistrationError(f"job type {job_type!r}: timeout must be above 0 and at most {_DAY_SECONDS} seconds")
    if isolate not in (None, "process"):
        raise RegistrationError(f'job type {job_type!r}: isolate is "process" or None, not {isolate!r}')


def _signature(function: Callable[..., Any], job_type: str) -> tuple[Any, bool]:
    """The payload's annotation (None for raw JSON), and whether the function takes a context."""
    if not callable(function):
        raise RegistrationError(f"job type {job_type!r}: {function!r} is not a function")
    where = f"job type {job_type!r}: handler {_name(function)}"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistrationError(f"{where} yields; a handler returns one result")
    shape = "takes the payload and, if it wants one, the context: def handler(payload: Model, ctx: Context)"
    positional: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise RegistrationError(f"{where} has *{parameter.name}; it {shape}")
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise RegistrationError(
                    f"{where} needs the keyword {parameter.name!r}, which nobody passes; it {shape}"
                )
            continue
        positional.append(parameter)
    if not positional:
        raise RegistrationError(f"{where} has no parameter; it {shape}")
    payload = _resolved(positional[0], function, where)
    if payload is Context:
        raise RegistrationError(f"{where}: the first parameter is the payload, the context comes second")
    takes_context = False
    if len(positional) > 1:
        second = positional[1]
        annotation = _resolved(second, function, where)
        is_required = second.default is second.empty
        takes_context = annotation is Context or (is_required and (annotation is None or annotation is Any))
        if is_required and not takes_context:
            raise RegistrationError(f"{where}: the second parameter, {second.name!r}, is not a Context; it {shape}")
    for extra in positional[2:]:
        if extra.default is extra.empty:
            raise RegistrationError(f"{where} needs the parameter {extra.name!r}, which nobody passes; it {shape}")
    return (None if payload is Any else payload), takes_context


def _resolved(parameter: inspect.Parameter, function: Callable[..., Any], where: str) -> Any:
    """The parameter's annotation as an object (it may be text), or None where there is none."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return None
    inner = inspect.unwrap(function)
    names = dict(getattr(inner, "__globals__", {}))
    if inspect.isfunction(inner):
        names.update(inspect.getclosurevars(inner).nonlocals)
    holder = SimpleNamespace(__annotations__={parameter.name: annotation})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except NameError as error:
        raise RegistrationError(
            f"{where}: the annotation {annotation!r} of {parameter.name!r} can't be resolved ({error}); "
            "import it at module level, outside TYPE_CHECKING"
        ) from error


def _decoder(payload_model: Any, function: Callable[..., Any], job_type: str) -> Callable[[bytes], Any]:
    if payload_model is None:
        return msgspec.json.Decoder().decode
    if isinstance(payload_model, type) and issubclass(payload_model, BaseModel):
        return payload_model.model_validate_json
    try:
        return TypeAdapter(payload_model).validate_json
    except Exception as error:  # pydantic raises many kinds here, and each one means the same for the author
        raise RegistrationError(
            f"job type {job_type!r}: the payload of {_name(function)} is annotated {payload_model!r}, "
            f"which pydantic can't check: {error}"
        ) from error


def _is_async(function: Callable[..., Any]) -> bool:
    # An object may be callable through an async method of its class.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _name(function: object) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{getattr(function, '__module__', '?')}.{name}" if name else repr(function)
