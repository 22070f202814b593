"""Clocks: where the shell reads the time that the pure core is handed as a value.

`DatabaseClock` follows the database's clock, because it is the database that judges leases and due times and whose day
decides into which partition a row goes; a machine with a wrong clock then still makes ids and due times that fit.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

# Half of it is the error: nothing is gained by asking again.
_QUICK_SECONDS = 0.001


class Clock(Protocol):
    """What a step needs to know about time."""

    def now(self) -> datetime:
        """The time, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, for measuring how long something took."""
        ...


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """The time, aware and in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()


class DatabaseClock:
    """The database's time, from an offset that `synchronise` measures; call it at start and then each minute.

    Between two measurements it runs on the machine's monotonic clock, so a stepped system clock doesn't move it.
    """

    __slots__ = ("_base", "_base_monotonic", "_base_ms", "_read", "uncertainty_seconds")

    def __init__(self, read: Callable[[], Awaitable[datetime]]) -> None:
        self._read = read
        self._base = datetime.now(UTC)
        self._base_monotonic = time.monotonic()
        self._base_ms = _unix_ms(self._base)
        self.uncertainty_seconds = float("inf")
        """Half the round trip of the best measurement so far in use; infinite before the first."""

    def now(self) -> datetime:
        """The database's time as well as we know it, aware and in UTC."""
        return self._base + timedelta(seconds=time.monotonic() - self._base_monotonic)

    def now_ms(self) -> int:
        """The same in whole Unix milliseconds, for ids."""
        return self._base_ms + int((time.monotonic() - self._base_monotonic) * 1000)

    def monotonic(self) -> float:
        """Seconds that only grow; the machine's, not the database's."""
        return time.monotonic()

    async def synchronise(self) -> float:
        """Measure the offset: up to three questions, the quickest answer counts. Returns the correction in seconds.

        Raises what the reader raises; the old offset then stays in use.
        """
        quickest = float("inf")
        base, base_monotonic = self._base, self._base_monotonic
        for _ in range(3):
            asked = time.monotonic()
            told = await self._read()
            answered = time.monotonic()
            if answered - asked < quickest:
                quickest = answered - asked
                # The database read its clock somewhere between question and answer; the middle halves the error.
                base, base_monotonic = told.astimezone(UTC), (asked + answered) / 2
            if quickest < _QUICK_SECONDS:
                break
        correction = (base - self._base).total_seconds() - (base_monotonic - self._base_monotonic)
        self._base, self._base_monotonic, self.uncertainty_seconds = base, base_monotonic, quickest / 2
        self._base_ms = _unix_ms(base)
        return correction


def _unix_ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
