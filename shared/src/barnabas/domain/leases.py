"""When a lease holds and when it is over.

The reaper takes back what is expired by the database's clock; a worker stops by its own monotonic clock. Both sides err
towards waiting, and the fence keeps a wrong guess harmless.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from barnabas.errors import RejectedError

# Two renewals in a row may fail, a restart of Postgres or a long pause of the process, before anyone loses a job.
RENEWALS_MIN: Final = 3


class BadLeaseError(RejectedError):
    """A lease and its renewal don't go together."""

    code = "bad_lease"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long a worker may hold jobs without a sign of life, and how often it gives one."""

    seconds: float
    renew_seconds: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a lease that one missed renewal would end."""
        # A lease above an hour would leave a dead worker's jobs waiting that long.
        if not 1.0 <= self.seconds <= 3600.0:
            raise BadLeaseError("seconds", "must be between 1 and 3600")
        if not self.renew_seconds >= 0.05:
            raise BadLeaseError("renew_seconds", "must be at least 0.05")
        if self.seconds < RENEWALS_MIN * self.renew_seconds:
            raise BadLeaseError(
                "seconds", f"must be at least {RENEWALS_MIN} renewals: {RENEWALS_MIN * self.renew_seconds:g} would do"
            )


def is_expired(
    lease_until: datetime,
    *,
    now: datetime,
    server_started_at: datetime,
    reaper_connected_at: datetime,
    lease_seconds: float,
) -> bool:
    """Whether the reaper may take back what this lease holds. All times are the database's.

    Nothing is expired before one full lease after the server's start and after the reaper's own connection: while
    Postgres was away no worker could renew, and taking its jobs then would run all of them twice.
    """
    grace = timedelta(seconds=lease_seconds)
    return now > lease_until and now >= server_started_at + grace and now >= reaper_connected_at + grace


def must_stop(last_renewed_mono: float, now_mono: float, lease_seconds: float) -> bool:
    """Whether a worker must cancel what it runs and go on under a new id.

    `last_renewed_mono` is the monotonic time just *before* the last renewal that succeeded was sent: the database
    counted from later, so the worker stops before anyone may take its jobs.
    """
    return now_mono - last_renewed_mono >= lease_seconds
