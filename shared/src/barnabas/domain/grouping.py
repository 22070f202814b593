"""When a group commit starts: at once while the load is low, a little later when waiting makes a better batch.

Source of the numbers: batches of 50, which an idle flush makes under load, cost 30 to 60 microseconds of CPU a job more
than batches of 250.
"""

from math import exp
from typing import Final

HOLD_SECONDS_MAX: Final = 0.025
_RATE_WITHOUT_HOLD: Final = 1_000.0
_RATE_OF_FULL_HOLD: Final = 5_000.0


def hold_seconds(rate: float) -> float:
    """How long a flush may wait for company, at `rate` arrivals a second: 0 up to 1,000, 25 ms from 5,000 on."""
    share = (rate - _RATE_WITHOUT_HOLD) / (_RATE_OF_FULL_HOLD - _RATE_WITHOUT_HOLD)
    return HOLD_SECONDS_MAX * min(1.0, max(0.0, share))


class RateMeter:
    """Arrivals a second, averaged with an exponential window; the caller passes the time."""

    __slots__ = ("_at", "_rate", "_window")

    def __init__(self, *, window_seconds: float = 0.5) -> None:
        self._window = window_seconds
        self._rate = 0.0
        self._at: float | None = None

    def add(self, count: int, *, now: float) -> None:
        """`count` arrived; `now` is monotonic."""
        self._decay(now)
        self._rate += count / self._window

    def rate(self, *, now: float) -> float:
        """Arrivals a second, lately."""
        self._decay(now)
        return self._rate

    def _decay(self, now: float) -> None:
        if self._at is not None and now > self._at:
            self._rate *= exp((self._at - now) / self._window)
        self._at = now if self._at is None else max(now, self._at)
