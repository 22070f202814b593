"""UUIDv7s: their fields, their order, and the bounds of a day."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.ids import Uuid7Source, day_floor, uuid7, uuid7_ms

MS_MAX = 2**48 - 1
milliseconds = st.integers(0, MS_MAX)
days = st.dates(date(1970, 1, 1), date(9999, 12, 30))


def source(times: list[int], *, seed: int = 1) -> Uuid7Source:
    ticking: Iterator[int] = iter(times)
    return Uuid7Source(now_ms=lambda: next(ticking), random_bytes=random.Random(seed).randbytes)


def test_it_is_the_example_of_the_standard() -> None:
    # RFC 9562, appendix A.6: rand_a 0xcc3, rand_b 0x18c4dc0c0c07398f without its variant bits.
    free = (0xCC3 << 62) | 0x18C4DC0C0C07398F

    made = uuid7(0x017F22E279B0, (free << 6).to_bytes(10))

    assert made == UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")


@given(milliseconds, st.binary(min_size=10, max_size=20))
def test_version_variant_and_time_are_where_they_belong(unix_ms: int, random_bits: bytes) -> None:
    made = uuid7(unix_ms, random_bits)

    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert uuid7_ms(made) == unix_ms


@given(milliseconds, st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_other_chance_is_another_id(unix_ms: int, one: bytes, other: bytes) -> None:
    same_bits = int.from_bytes(one) >> 6 == int.from_bytes(other) >> 6

    assert (uuid7(unix_ms, one) == uuid7(unix_ms, other)) == same_bits


def test_a_time_beyond_the_field_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        uuid7(MS_MAX + 1, bytes(10))
    with pytest.raises(AssertionError):
        uuid7(-1, bytes(10))


@given(st.lists(st.tuples(st.integers(-500, 500), st.integers(1, 5)), min_size=1, max_size=30), st.integers())
def test_ids_grow_while_the_clock_wavers_by_less_than_a_second(steps: list[tuple[int, int]], seed: int) -> None:
    minting = source([10_000_000 + waver for waver, _ in steps], seed=seed)

    ids = [made for _, count in steps for made in minting.mint_many(count)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_ids_of_one_millisecond_grow_and_stay_in_it() -> None:
    minting = source([5_000_000] * 10)

    ids = [minting.mint() for _ in range(9)] + minting.mint_many(5_000)

    assert ids == sorted(set(ids))
    assert {uuid7_ms(made) for made in ids} == {5_000_000}


def test_a_clock_that_went_back_by_more_than_a_second_is_believed() -> None:
    minting = source([9_000_000, 8_999_000, 8_998_999])

    first, waiting, corrected = minting.mint(), minting.mint(), minting.mint()

    assert first < waiting
    assert uuid7_ms(waiting) == 9_000_000
    assert uuid7_ms(corrected) == 8_998_999


def test_ids_grow_even_without_any_luck() -> None:
    minting = Uuid7Source(now_ms=lambda: 77, random_bytes=bytes)

    ids = minting.mint_many(50)

    assert ids == sorted(set(ids))


def test_ids_that_fill_their_millisecond_go_on_in_the_next() -> None:
    # The most chance there can be: the counter starts at half of its room and grows by 2**32 each time.
    minting = Uuid7Source(now_ms=lambda: 77, random_bytes=lambda count: b"\xff" * count)
    minting._begin(77)
    minting._free = (1 << 74) - (1 << 32) - 1

    last, next_ = minting.mint_many(2)

    assert last < next_
    assert (uuid7_ms(last), uuid7_ms(next_)) == (77, 78)


def test_none_asked_for_is_none_made() -> None:
    assert source([1]).mint_many(0) == []


@given(days, st.integers(0, 86_399_999), st.binary(min_size=10, max_size=10))
def test_every_id_of_a_day_lies_between_its_floor_and_the_next(day: date, ms_of_day: int, chance: bytes) -> None:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    unix_ms = int((midnight - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)) + ms_of_day

    made = uuid7(unix_ms, chance)

    assert day_floor(day) <= made < day_floor(day + timedelta(days=1))


def test_a_floor_is_the_smallest_id_of_its_day() -> None:
    assert day_floor(date(2026, 1, 1)) == uuid7(1_767_225_600_000, bytes(10))
    assert str(day_floor(date(1970, 1, 1))) == "00000000-0000-7000-8000-000000000000"
