"""Every error that Barnabas raises on purpose, grouped by what the caller should do about it.

`TransientError`: try later. `RejectedError`: it never will work. `SupersededError`: the world moved on, drop it quietly
and count it. A leaf's docstring is its default message and `code` is its name for machines; a code never changes.
"""

from typing import ClassVar


class BarnabasError(Exception):
    """Something went wrong in Barnabas."""

    code: ClassVar[str] = "barnabas_error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or self.code).strip().splitlines()[0])


class TransientError(BarnabasError):
    """The call may work later."""

    code = "transient"


class RejectedError(BarnabasError):
    """The call will never work as it is."""

    code = "rejected"


class SupersededError(BarnabasError):
    """Someone newer owns this; what was done here is dropped."""

    code = "superseded"


class DatabaseUnavailableError(TransientError):
    """Postgres can't be reached or refuses work at the moment."""

    code = "database_unavailable"


class BrokerUnavailableError(TransientError):
    """Kafka can't be reached, or did not acknowledge in time: what was sent may or may not have arrived."""

    code = "broker_unavailable"


class OverloadedError(TransientError):
    """More work is waiting than may be held in memory."""

    code = "overloaded"


class UnknownQueueError(TransientError):
    """A queue's name isn't known to this process yet."""

    code = "unknown_queue"


class SettingsError(RejectedError):
    """A setting is missing, out of range, or contradicts another one."""

    code = "bad_setting"


class MalformedRecordError(RejectedError):
    """A record can't be read."""

    code = "malformed_record"
