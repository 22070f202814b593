"""Over how many buckets a hot tenant goes: at once when it becomes hot, fewer only after a while, and nobody else."""

import random
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barnabas.domain.spread import BUCKETS, Spread, bucket_of

HOT = UUID(int=1)


def tenant(number: int) -> UUID:
    return UUID(int=100 + number)


def send(spread: Spread, tenant_id: UUID, rate: float, *, begin: float, seconds: float) -> list[int]:
    """Records at an even rate; what each went over."""
    count = round(rate * seconds)
    return [spread.add(tenant_id, now=begin + seconds * number / count) for number in range(count)]


def test_a_tenant_with_few_records_keeps_one_key() -> None:
    spread = Spread(partitions=24)

    assert set(send(spread, HOT, 9, begin=0, seconds=300)) == {1}
    assert spread.buckets(HOT) == 1


def test_a_hot_tenant_is_spread_within_its_first_window_as_far_as_it_needs() -> None:
    spread = Spread(partitions=24)

    told = send(spread, HOT, 75, begin=0, seconds=5)

    assert told[0] == 1
    assert told == sorted(told)
    # 375 in a window, 50 for each: 7.5 buckets.
    assert told[-1] == 8


def test_a_flood_of_one_tenant_goes_over_all_buckets() -> None:
    spread = Spread(partitions=24)

    assert send(spread, HOT, 10_000, begin=0, seconds=0.5)[-1] == BUCKETS[-1]


def test_tenants_that_have_no_more_than_a_partitions_fair_share_stay_on_one() -> None:
    spread = Spread(partitions=24)

    for step in range(20_000):
        for number in range(24):
            now = step * 0.001
            assert step < 100 or spread.add(tenant(number), now=now) <= 2

    # Each brought 1,000 a second: a twenty-fourth of everything, give or take the borders of windows.
    assert max(spread.buckets(tenant(number)) for number in range(24)) <= 2


def test_a_hot_tenant_among_busy_ones_is_spread_by_what_it_has_above_a_fair_share() -> None:
    spread = Spread(partitions=24)
    choice = random.Random(7)

    for step in range(100_000):
        hot = choice.random() < 0.5
        spread.add(HOT if hot else tenant(choice.randrange(200)), now=step / 10_000)

    assert spread.buckets(HOT) == 16  # half of the records are twelve partitions' share
    assert {spread.buckets(tenant(number)) for number in range(200)} == {1}


@pytest.mark.parametrize("rate", [82, 100, 150])
def test_a_tenant_at_an_even_rate_does_not_flap(rate: int) -> None:
    spread = Spread(partitions=24)
    send(spread, HOT, rate, begin=0, seconds=20)

    assert set(send(spread, HOT, rate, begin=20, seconds=200)) == {16}


def test_a_tenant_does_not_shrink_because_others_have_become_busy() -> None:
    spread = Spread(partitions=24)
    assert send(spread, HOT, 10_000, begin=0, seconds=0.2)[-1] == 32
    for number in range(10):
        send(spread, tenant(number), 20_000, begin=1, seconds=0.2)

    assert send(spread, HOT, 100, begin=2, seconds=1) == [32] * 100


def test_what_was_before_a_silence_is_no_measure_any_more() -> None:
    spread = Spread(partitions=24)
    for number in range(24):
        send(spread, tenant(number), 1_000, begin=0, seconds=4)

    assert send(spread, HOT, 400, begin=60, seconds=1)[-1] == 8


def test_a_tenant_that_has_become_quiet_shrinks_by_half_at_a_time() -> None:
    spread = Spread(partitions=24)
    send(spread, HOT, 100, begin=0, seconds=20)

    after = {at: send(spread, HOT, 1, begin=at, seconds=5)[-1] for at in range(20, 160, 5)}

    assert after[40] == 16, "not at once"
    values = list(after.values())
    assert values == sorted(values, reverse=True)
    assert set(values) == {16, 8, 4, 2, 1}
    assert spread.buckets(HOT) == 1


def test_a_tenant_that_ends_is_forgotten() -> None:
    spread = Spread(partitions=24)
    send(spread, HOT, 100, begin=0, seconds=20)

    spread.add(tenant(1), now=1_000.0)

    assert spread.buckets(HOT) == 1
    assert len(spread) == 1


def test_memory_is_bounded_and_the_hot_tenant_is_still_seen() -> None:
    spread = Spread(partitions=24, tenants_max=100)
    choice = random.Random(11)
    seen = 0

    for step in range(20_000):
        hot = choice.random() < 0.3
        seen = max(seen, spread.add(HOT if hot else tenant(choice.randrange(10**9)), now=step / 2_000))
        assert len(spread) <= 300

    # Many hot ones are no way around it either.
    crowd = Spread(partitions=24, tenants_max=10)
    for number in range(200):
        send(crowd, tenant(number), 600, begin=number / 100, seconds=0.1)
        assert len(crowd) <= 30

    # 600 of 2,000 a second are seven or eight partitions' share.
    assert spread.buckets(HOT) in (8, 16)
    assert seen == spread.buckets(HOT)


@pytest.mark.parametrize("buckets", BUCKETS)
def test_jobs_are_even_over_the_buckets_and_each_is_always_in_the_same(buckets: int) -> None:
    choice = random.Random(3)
    jobs = [UUID(int=choice.getrandbits(128)) for _ in range(200 * buckets)]

    counts = Counter(bucket_of(job_id, buckets) for job_id in jobs)

    assert set(counts) == set(range(buckets))
    assert max(counts.values()) < 300
    assert [bucket_of(job_id, buckets) for job_id in jobs] == [bucket_of(job_id, buckets) for job_id in jobs]


arrivals = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 400), st.floats(0, 40, allow_nan=False)), min_size=1, max_size=40
)


@given(arrivals)
@settings(max_examples=200, derandomize=True, database=None, deadline=None)
def test_whatever_arrives_a_tenant_has_as_many_buckets_as_are_told_and_never_grows_without_need(
    given_arrivals: list[tuple[int, int, float]],
) -> None:
    spread = Spread(partitions=24)
    sent: dict[UUID, list[float]] = {}
    now = 0.0
    for number, count, rest in given_arrivals:
        tenant_id = tenant(number)
        for _ in range(count):
            before = spread.buckets(tenant_id)
            told = spread.add(tenant_id, now=now)
            sent.setdefault(tenant_id, []).append(now)

            assert told in BUCKETS
            assert told == spread.buckets(tenant_id)
            if told > before:
                # 50 for each bucket but the last doubling's, in this window and what counts of the one before. That may
                # have begun three windows' lengths ago: a window begins with a record.
                recent = sum(1 for at in sent[tenant_id] if at > now - 15.0)
                assert recent > told // 2 * 50
        now += rest
    assert len(spread) <= 18


@given(arrivals)
@settings(max_examples=50, derandomize=True, database=None, deadline=None)
def test_a_tenant_does_not_shrink_within_its_rest(given_arrivals: list[tuple[int, int, float]]) -> None:
    spread = Spread(partitions=24)
    now, changed_at = 0.0, {}
    buckets: dict[UUID, int] = {}
    for number, count, rest in given_arrivals:
        for _ in range(count):
            tenant_id = tenant(number)
            told = spread.add(tenant_id, now=now)
            if told > buckets.get(tenant_id, 1):
                changed_at[tenant_id] = now
            if told < buckets.get(tenant_id, 1):
                assert now - changed_at[tenant_id] >= 30.0
            buckets[tenant_id] = told
        now += rest
