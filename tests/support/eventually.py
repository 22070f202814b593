"""The single place that polls: waits for a result that another process or thread brings about."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")

_POLL_SECONDS = 0.05
# Only a failure takes that long: it bounds how late a starved machine may be, never how quick the product is.
_LIMIT_SECONDS = 60.0


@overload
async def eventually(
    read: Callable[[], Coroutine[Any, Any, T]], *, until: Callable[[T], object] = bool, timeout: float = _LIMIT_SECONDS
) -> T: ...


@overload
async def eventually(
    read: Callable[[], T], *, until: Callable[[T], object] = bool, timeout: float = _LIMIT_SECONDS
) -> T: ...


async def eventually(
    read: Callable[[], Any], *, until: Callable[[Any], object] = bool, timeout: float = _LIMIT_SECONDS
) -> Any:
    """The first value of `read` that `until` accepts; fails with the last one seen after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = read()
        value = await answer if inspect.isawaitable(answer) else answer
        if until(value):
            return value
        if time.monotonic() >= deadline:
            message = f"not within {timeout:g} s; last seen: {value!r}"
            raise AssertionError(message)
        await asyncio.sleep(_POLL_SECONDS)


async def at_last(step: Callable[[], Awaitable[T]], *, refused: type[Exception], timeout: float = _LIMIT_SECONDS) -> T:
    """What `step` answers once it isn't refused any more; fails with the last refusal after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return await step()
        except refused:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(_POLL_SECONDS)
