"""Limits as values.

The gate's row in Postgres holds the count; here is only what a limit may be and how much room it leaves.
"""

from dataclasses import dataclass
from typing import Final

from barnabas.errors import RejectedError

CONCURRENCY_MAX: Final = 100_000


class BadLimitError(RejectedError):
    """A limit is out of range."""

    code = "bad_limit"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a tenant may use at once. None is no limit of its own."""

    concurrency: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no limit: zero would hold every job for ever, which is what pausing is for."""
        value = self.concurrency
        if value is None:
            return
        # By exact type: True is an int too, and 2.5 compares like one.
        if type(value) is not int or not 1 <= value <= CONCURRENCY_MAX:
            raise BadLimitError("concurrency", f"must be a whole number from 1 to {CONCURRENCY_MAX}, or null for none")


def room(limit: int | None, used: int) -> int | None:
    """How many more may start: None without a limit, 0 when used up or when the limit was lowered below what runs."""
    assert used >= 0, "a gate can't be used less than not at all"
    return None if limit is None else max(0, limit - used)
