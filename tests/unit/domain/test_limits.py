"""Limits as values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.limits import (
    CONCURRENCY_MAX,
    RATE_MAX,
    TYPES_MAX,
    WEIGHT_MAX,
    BadLimitError,
    Limits,
    TypeLimits,
)

_MOST = {"concurrency": CONCURRENCY_MAX, "starts_per_minute": RATE_MAX, "submits_per_minute": RATE_MAX}
_OF_A_TYPE = ("concurrency", "starts_per_minute")


def given_limits(field: str, value: Any) -> list[Any]:
    """Everything that has such a limit, with that value."""
    kinds: list[type[Any]] = [Limits, TypeLimits] if field in _OF_A_TYPE else [Limits]
    return [kind(**{field: value}) for kind in kinds]


@pytest.mark.parametrize("field", _MOST)
@given(data=st.data())
def test_a_limit_in_range_is_kept_and_none_is_no_limit(field: str, data: st.DataObject) -> None:
    value = data.draw(st.none() | st.integers(1, _MOST[field]))

    assert [getattr(limits, field) for limits in given_limits(field, value)] == [value] * (1 + (field in _OF_A_TYPE))


@pytest.mark.parametrize("field", _MOST)
@pytest.mark.parametrize("value", [0, -1, True, 2.5, "5", "most"])
def test_a_limit_out_of_range_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(BadLimitError) as refused:
        given_limits(field, _MOST[field] + 1 if value == "most" else value)

    assert (refused.value.field, refused.value.code) == (field, "bad_limit")
    assert field in str(refused.value)


@pytest.mark.parametrize("weight", [0, WEIGHT_MAX + 1, None, True])
def test_a_weight_out_of_range_is_refused(weight: Any) -> None:
    with pytest.raises(BadLimitError) as refused:
        Limits(weight=weight)

    assert refused.value.field == "weight"


def test_too_many_types_are_refused() -> None:
    types = {f"type-{number}": TypeLimits(concurrency=1) for number in range(TYPES_MAX + 1)}

    with pytest.raises(BadLimitError) as refused:
        Limits(types=types)

    assert refused.value.field == "types"
    assert Limits(types=dict(list(types.items())[1:])).types


def test_no_limits_are_the_default() -> None:
    limits = Limits()

    assert (limits.concurrency, limits.starts_per_minute, limits.submits_per_minute) == (None, None, None)
    assert (limits.weight, dict(limits.types)) == (1, {})
    assert TypeLimits().is_none
    assert not TypeLimits(starts_per_minute=1).is_none
