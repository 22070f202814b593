"""Limits as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.limits import CONCURRENCY_MAX, BadLimitError, Limits, room


@given(st.none() | st.integers(1, CONCURRENCY_MAX), st.integers(0, CONCURRENCY_MAX))
def test_room_is_what_the_limit_leaves_and_never_negative(limit: int | None, used: int) -> None:
    free = room(limit, used)

    if limit is None:
        assert free is None
    else:
        assert free == (limit - used if used < limit else 0)


@pytest.mark.parametrize("concurrency", [None, 1, 5, CONCURRENCY_MAX])
def test_a_limit_in_range_is_kept(concurrency: int | None) -> None:
    assert Limits(concurrency=concurrency).concurrency == concurrency


@pytest.mark.parametrize("concurrency", [0, -1, CONCURRENCY_MAX + 1, True, 2.5, "5"])
def test_a_limit_out_of_range_is_refused(concurrency: int) -> None:
    with pytest.raises(BadLimitError) as refused:
        Limits(concurrency=concurrency)

    assert (refused.value.field, refused.value.code) == ("concurrency", "bad_limit")
