"""The one signal that ends a process: set by SIGTERM, read by every loop.

It is passed as an argument, never global. Once set it stays set, and setting it twice is harmless.
"""

import asyncio
from collections.abc import Callable


class Stop:
    """Tells loops to finish what they hold and return."""

    __slots__ = ("_calls", "_event")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._calls: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        """Whether the process is stopping."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask every loop to finish; call it on the event loop's thread."""
        self._event.set()
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def on_set(self, call: Callable[[], object]) -> None:
        """Have `call` made when the stop comes, or now if it has: it wakes a loop that waits for something else."""
        if self._event.is_set():
            call()
        else:
            self._calls.append(call)

    async def wait(self, timeout: float) -> bool:
        """Rest for `timeout` seconds or until the stop, whichever comes first; true when stopping."""
        if self._event.is_set():
            return True
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            pass  # the rest is over and nobody asked to stop
        return self._event.is_set()

    async def requested(self) -> None:
        """Return when the stop is set. For the supervisor of the loops: a loop itself uses `wait` with a limit."""
        await self._event.wait()
