"""Limits as values: what a tenant may use, all of it at once.

The gates' rows in Postgres hold the counts; here is only what a limit may be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from barnabas.errors import RejectedError

CONCURRENCY_MAX: Final = 100_000
RATE_MAX: Final = 1_000_000
"""A minute. Above that it is no limit but the size of the installation."""
WEIGHT_MAX: Final = 1_000
TYPES_MAX: Final = 100
"""Types with limits of their own, a tenant: each is a row that its claims look at."""


class BadLimitError(RejectedError):
    """A limit is out of range."""

    code = "bad_limit"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeLimits:
    """What the jobs of one type of a tenant may use. None is no limit of its own."""

    concurrency: int | None = None
    """How many run at once."""
    starts_per_minute: int | None = None
    """How many start within any 60 seconds."""

    def __post_init__(self) -> None:
        """Refuse what is no limit: zero would hold every job for ever, which is what pausing is for."""
        _check("concurrency", self.concurrency, CONCURRENCY_MAX)
        _check("starts_per_minute", self.starts_per_minute, RATE_MAX)

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self.concurrency is None and self.starts_per_minute is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a tenant may use. None is no limit of its own."""

    concurrency: int | None = None
    """How many of its jobs run at once."""
    starts_per_minute: int | None = None
    """How many of its jobs start within any 60 seconds."""
    submits_per_minute: int | None = None
    """How many jobs it may submit within any 60 seconds."""
    weight: int = 1
    """How many of its jobs start where one of weight 1 starts, while both have jobs waiting."""
    types: Mapping[str, TypeLimits] = field(default_factory=dict)
    """Limits of single job types, on top of the tenant's."""

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        _check("concurrency", self.concurrency, CONCURRENCY_MAX)
        _check("starts_per_minute", self.starts_per_minute, RATE_MAX)
        _check("submits_per_minute", self.submits_per_minute, RATE_MAX)
        if not _is_whole(self.weight, WEIGHT_MAX):
            raise BadLimitError("weight", f"must be a whole number from 1 to {WEIGHT_MAX}")
        if len(self.types) > TYPES_MAX:
            raise BadLimitError("types", f"has at most {TYPES_MAX} job types")


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeUse:
    """How much of a type's limits is used; None where there is none."""

    running: int | None = None
    starts: int | None = None
    """Within the last minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsUse:
    """How much of a tenant's limits is used; None where there is none, since then nobody counts."""

    running: int | None = None
    starts: int | None = None
    """Within the last minute."""
    submits: int | None = None
    """Within the last minute."""
    types: Mapping[str, TypeUse] = field(default_factory=dict)


def _check(name: str, value: int | None, most: int) -> None:
    if value is not None and not _is_whole(value, most):
        raise BadLimitError(name, f"must be a whole number from 1 to {most}, or null for none")


def _is_whole(value: int, most: int) -> bool:
    # By exact type: True is an int too, and 2.5 compares like one.
    return type(value) is int and 1 <= value <= most
