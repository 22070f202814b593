"""The single place that polls: waits for a result that another process or thread brings about."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.05


async def eventually(
    read: Callable[[], T | Awaitable[T]], *, until: Callable[[T], object] = bool, timeout: float = 20.0
) -> T:
    """The first value of `read` that `until` accepts; fails with the last one seen after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = read()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if until(value):
            return value
        if time.monotonic() >= deadline:
            message = f"not within {timeout:g} s; last seen: {value!r}"
            raise AssertionError(message)
        await asyncio.sleep(_POLL_SECONDS)
