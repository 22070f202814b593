"""A tenant's limits as the administrator sends and sees them.

Ranges are the domain's, which names the exact place of what is outside; here they stand for the description only.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from barnabas.contract.intake import Name
from barnabas.contract.json_text import escape_pointer
from barnabas.contract.problems import refused
from barnabas.domain.limits import (
    CONCURRENCY_MAX,
    RATE_MAX,
    TYPES_MAX,
    WEIGHT_MAX,
    BadLimitError,
    Limits,
    LimitsUse,
    TypeLimits,
)


def _range(most: int, about: str) -> Meta:
    return Meta(description=about, extra_json_schema={"minimum": 1, "maximum": most})


Concurrency = Annotated[int | None, _range(CONCURRENCY_MAX, "How many jobs run at once.")]
Starts = Annotated[int | None, _range(RATE_MAX, "How many jobs start within any 60 seconds.")]
Submits = Annotated[int | None, _range(RATE_MAX, "How many jobs are accepted within any 60 seconds.")]
Weight = Annotated[
    int, _range(WEIGHT_MAX, "How many jobs start where one of weight 1 starts, while both tenants have jobs waiting.")
]


class TypeLimitsInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one job type of a tenant; what is left out or null is no limit."""

    concurrency: Concurrency = None
    starts_per_minute: Starts = None


class LimitsInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's limits, all of them at once: what is left out or null is no limit from then on.

    A job type in `types` needs no job yet. A job starts when both its tenant's limits and its type's let it.
    """

    concurrency: Concurrency = None
    starts_per_minute: Starts = None
    submits_per_minute: Submits = None
    weight: Weight = 1
    types: Annotated[dict[Name, TypeLimitsInput], Meta(extra_json_schema={"maxProperties": TYPES_MAX})] = {}


class TypeUseView(msgspec.Struct, frozen=True):
    """How much of a type's limits is used; null where there is none."""

    running: int | None
    starts: int | None
    """In the last 60 seconds."""


class LimitsUseView(msgspec.Struct, frozen=True):
    """How much of the limits is used; null where there is none."""

    running: int | None
    starts: int | None
    """In the last 60 seconds."""
    submits: int | None
    """In the last 60 seconds."""
    types: dict[str, TypeUseView]


class TypeLimitsView(msgspec.Struct, frozen=True):
    """Limits of one job type of a tenant; null = none."""

    concurrency: int | None
    starts_per_minute: int | None


class LimitsView(msgspec.Struct, frozen=True):
    """A tenant's limits, null = none, and how much of them is used."""

    concurrency: int | None
    starts_per_minute: int | None
    submits_per_minute: int | None
    weight: int
    types: dict[str, TypeLimitsView]
    use: LimitsUseView


def read_limits_input(given: LimitsInput) -> Limits:
    """The limits; raises `ProblemError` that points at what is out of range."""
    path: tuple[str, ...] = ()
    try:
        types = {}
        for name, each in given.types.items():
            path = ("types", name)
            types[name] = TypeLimits(concurrency=each.concurrency, starts_per_minute=each.starts_per_minute)
        path = ()
        return Limits(
            concurrency=given.concurrency,
            starts_per_minute=given.starts_per_minute,
            submits_per_minute=given.submits_per_minute,
            weight=given.weight,
            types=types,
        )
    except BadLimitError as error:
        pointer = "".join(f"/{escape_pointer(step)}" for step in (*path, error.field))
        raise refused("validation_failed", str(error), pointer=pointer) from None


def limits_view(limits: Limits, use: LimitsUse) -> LimitsView:
    """Limits as they are shown."""
    return LimitsView(
        concurrency=limits.concurrency,
        starts_per_minute=limits.starts_per_minute,
        submits_per_minute=limits.submits_per_minute,
        weight=limits.weight,
        types={name: TypeLimitsView(each.concurrency, each.starts_per_minute) for name, each in limits.types.items()},
        use=LimitsUseView(
            running=use.running,
            starts=use.starts,
            submits=use.submits,
            types={name: TypeUseView(each.running, each.starts) for name, each in use.types.items()},
        ),
    )
