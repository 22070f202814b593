"""How long to wait before the next attempt, of a job and of a delivery.

Pure arithmetic: the random part comes in as `jitter` in [0, 1). Every wait has a cap, whatever the attempt's number,
the policy or the other side asks for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from barnabas.errors import RejectedError

# A handler or a receiver may ask for a later retry, but not for one that outlives a day.
RETRY_AFTER_SECONDS_MAX: Final = 86_400.0

# A job may wait this long and no longer: its payload has to outlive the wait.
DELAY_SECONDS_MAX: Final = 30 * 86_400.0

# Above a hundredfold from one attempt to the next only the cap is left of the curve.
_FACTOR_MAX: Final = 100.0

# A receiver that comes back must not meet all waiting deliveries in one second; a tenth spreads them and is never
# early.
_DELIVERY_JITTER: Final = 0.1

DEFAULT_DELIVERY_SCHEDULE: Final[tuple[float, ...]] = (
    5.0,
    300.0,
    1_800.0,
    7_200.0,
    18_000.0,
    36_000.0,
    50_400.0,
    72_000.0,
    86_400.0,
)
"""The waits between ten tries, 75 h 35 min in all. Source: Standard Webhooks, "Retry schedule"."""


class BadRetryPolicyError(RejectedError):
    """A retry policy is out of range."""

    code = "bad_retry_policy"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


class BadRetryScheduleError(RejectedError):
    """A delivery's retry schedule is out of range."""

    code = "bad_retry_schedule"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """A capped exponential: `base_seconds`, then times `factor` for each attempt, never above `cap_seconds`."""

    base_seconds: float = 30.0
    factor: float = 2.0
    cap_seconds: float = 3600.0
    jitter: Literal["none", "full"] = "none"

    def __post_init__(self) -> None:
        """Refuse what can't be meant: a value that isn't a number, runs backwards or contradicts another one."""
        _check("cap_seconds", self.cap_seconds, low=0.0, high=DELAY_SECONDS_MAX)
        _check("base_seconds", self.base_seconds, low=0.0, high=DELAY_SECONDS_MAX)
        _check("factor", self.factor, low=1.0, high=_FACTOR_MAX)
        if self.base_seconds > self.cap_seconds:
            raise BadRetryPolicyError(
                "base_seconds", f"must not be above cap_seconds ({self.cap_seconds:g}): lower it or raise the cap"
            )
        if self.jitter not in ("none", "full"):
            raise BadRetryPolicyError("jitter", "must be 'none' or 'full'")


def delay(attempt: int, policy: RetryPolicy, *, jitter: float) -> float:
    """Seconds to wait before the next attempt.

    `attempt` counts from 1 (the one that just failed); `jitter` is uniform in [0, 1) and only used by full jitter,
    which takes that part of the capped exponential. Never above `policy.cap_seconds`, for any attempt. Source:
    "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    assert attempt >= 1, "attempts count from 1"
    full = _capped_exponential(attempt - 1, policy)
    return full * jitter if policy.jitter == "full" else full


def delivery_delay(
    attempt: int, schedule: Sequence[float], *, jitter: float, retry_after: float | None
) -> float | None:
    """Seconds until a delivery's next try, or None when its schedule is used up.

    `attempt` counts from 1 (the one that just failed) and `schedule[attempt - 1]` is the wait after it.
    `retry_after`, as the receiver sent it, is a floor, itself capped at 24 h. `jitter` in [0, 1) only adds, up to a
    tenth: a retry is never early.
    """
    assert attempt >= 1, "attempts count from 1"
    if attempt > len(schedule):
        return None
    return max(schedule[attempt - 1], capped_retry_after(retry_after)) * (1.0 + _DELIVERY_JITTER * jitter)


def capped_retry_after(retry_after: float | None) -> float:
    """What a wish for a later retry is worth in seconds: 0 for none or nonsense, a day at most."""
    if retry_after is None:
        return 0.0
    return bounded_seconds(retry_after, high=RETRY_AFTER_SECONDS_MAX)


def bounded_seconds(seconds: float, *, high: float = DELAY_SECONDS_MAX) -> float:
    """`seconds` held in [0, high]; what isn't a number counts as 0."""
    if math.isnan(seconds):
        return 0.0
    return min(max(seconds, 0.0), high)


def check_schedule(schedule: Sequence[float]) -> tuple[float, ...]:
    """An endpoint's own retry schedule, as stored; raises `BadRetryScheduleError`.

    None to 50 waits of 0 seconds to 30 days each.
    """
    if len(schedule) > 50:
        raise BadRetryScheduleError("a retry schedule has at most 50 waits")
    for seconds in schedule:
        if isinstance(seconds, bool) or not 0.0 <= seconds <= DELAY_SECONDS_MAX:
            raise BadRetryScheduleError(f"each wait must be between 0 and {DELAY_SECONDS_MAX:.0f} seconds")
    return tuple(float(seconds) for seconds in schedule)


def _capped_exponential(exponent: int, policy: RetryPolicy) -> float:
    try:
        grown = policy.base_seconds * policy.factor**exponent
    except OverflowError:
        # From a few hundred attempts on the power leaves the range of floats; the cap was passed long before.
        return policy.cap_seconds if policy.base_seconds else 0.0
    return float(min(grown, policy.cap_seconds))


def _check(field: str, value: float, *, low: float, high: float) -> None:
    # Written so that NaN fails it too.
    if isinstance(value, bool) or not low <= value <= high:
        raise BadRetryPolicyError(field, f"must be between {low:g} and {high:g}")
