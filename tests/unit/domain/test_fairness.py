"""The look-ahead's order: fair, work-conserving, nothing lost."""

import random
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.fairness import DEFAULT_SHARES, LookAhead
from barnabas.domain.jobs import Priority

Entry = tuple[str, Priority, int]

pushes = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(Priority), st.integers(1, 40)), max_size=80)


def fill(look_ahead: LookAhead[Entry], tenant: str, priority: Priority, count: int, *, size: int = 1) -> None:
    for number in range(count):
        assert look_ahead.push((tenant, priority, number), tenant=tenant, priority=priority, size=size)


def filled(*backlogs: tuple[str, Priority, int]) -> LookAhead[Entry]:
    look_ahead = LookAhead[Entry](bytes_max=1_000_000)
    for tenant, priority, count in backlogs:
        fill(look_ahead, tenant, priority, count)
    return look_ahead


def tenants_of(entries: list[Entry]) -> str:
    return "".join(tenant for tenant, _, _ in entries)


def test_a_burst_of_one_tenant_does_not_delay_another() -> None:
    look_ahead = filled(("a", Priority.MEDIUM, 10_000), ("b", Priority.MEDIUM, 2))

    assert tenants_of(look_ahead.take(6)) == "ababaa"


def test_a_tenant_of_weight_three_gets_three_in_a_row() -> None:
    look_ahead = filled(("a", Priority.MEDIUM, 20), ("b", Priority.MEDIUM, 20))
    look_ahead.set_weights({"b": 3})

    assert tenants_of(look_ahead.take(12)) == "abbbabbbabbb"


def test_an_unfinished_turn_goes_on_with_the_next_take() -> None:
    look_ahead = filled(("b", Priority.MEDIUM, 20), ("a", Priority.MEDIUM, 20))
    look_ahead.set_weights({"b": 3})

    assert "".join(tenants_of(look_ahead.take(1)) for _ in range(8)) == "bbbabbba"


def test_a_slot_that_is_kept_goes_to_the_fairest_of_those_it_is_kept_for() -> None:
    look_ahead = filled(
        ("a", Priority.CRITICAL, 9), ("b", Priority.LOW, 2), ("a", Priority.HIGH, 9), ("c", Priority.HIGH, 1)
    )

    assert tenants_of(look_ahead.take_for(2, lambda tenant: tenant != "a")) == "cb"
    assert tenants_of(look_ahead.take_for(9, lambda tenant: tenant != "a")) == "b"
    assert not look_ahead.has_for(lambda tenant: tenant != "a")
    assert tenants_of(look_ahead.take(18)) == "a" * 18


def test_nobody_saves_up_turns_while_it_has_no_work() -> None:
    look_ahead = filled(("a", Priority.LOW, 1), ("b", Priority.LOW, 50))
    look_ahead.set_weights({"a": 10})
    look_ahead.take(20)
    fill(look_ahead, "a", Priority.LOW, 30)

    assert Counter(tenants_of(look_ahead.take(22))) == {"a": 20, "b": 2}


def test_of_equals_the_higher_priority_goes_first() -> None:
    look_ahead = filled(*((priority.label, priority, 5) for priority in Priority))

    assert [priority.label for _, priority, _ in look_ahead.take(4)] == ["critical", "high", "medium", "low"]


@pytest.mark.parametrize("taken", [100, 1_000, 4_000])
def test_backlogged_priorities_get_their_shares(taken: int) -> None:
    look_ahead = filled(*(("a", priority, 4_000) for priority in Priority))

    got = Counter(priority for _, priority, _ in look_ahead.take(taken))

    for priority, share in DEFAULT_SHARES.items():
        assert got[priority] / taken == pytest.approx(share / 100, abs=0.01)


def test_a_priority_that_was_idle_earns_nothing_for_that_time() -> None:
    look_ahead = filled(("a", Priority.LOW, 10_000))
    look_ahead.take(5_000)
    fill(look_ahead, "a", Priority.CRITICAL, 5_000)

    got = Counter(priority for _, priority, _ in look_ahead.take(900))

    assert got[Priority.CRITICAL] == pytest.approx(900 * 25 / 45, abs=2)


def test_low_work_that_comes_after_a_long_critical_rush_is_not_made_to_pay_for_it() -> None:
    look_ahead = filled(("a", Priority.CRITICAL, 10_000))
    look_ahead.take(9_000)
    fill(look_ahead, "b", Priority.LOW, 10)

    assert "b" in tenants_of(look_ahead.take(3))


@given(st.sets(st.sampled_from(Priority), min_size=1), st.integers(200, 600))
def test_an_idle_priority_s_share_goes_to_the_others(busy: set[Priority], taken: int) -> None:
    look_ahead = filled(*(("a", priority, 600) for priority in busy))

    got = Counter(priority for _, priority, _ in look_ahead.take(taken))

    whole = sum(DEFAULT_SHARES[priority] for priority in busy)
    assert got.total() == taken
    for priority in busy:
        assert got[priority] / taken == pytest.approx(DEFAULT_SHARES[priority] / whole, abs=0.05)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 6), min_size=2),
    st.lists(st.integers(1, 7), min_size=1, max_size=20),
)
def test_backlogged_tenants_are_never_further_apart_than_one_turn(weights: dict[str, int], takes: list[int]) -> None:
    look_ahead = filled(*((tenant, Priority.HIGH, 150) for tenant in weights))
    look_ahead.set_weights(weights)
    got: Counter[str] = Counter()

    for count in takes:
        got.update(tenants_of(look_ahead.take(count)))
        rounds = [got[tenant] / weight for tenant, weight in weights.items()]
        assert max(rounds) - min(rounds) <= 1.0


@given(st.integers(), st.integers(2, 30))
def test_tenants_with_bursts_of_their_own_share_within_five_percent(seed: int, tenants: int) -> None:
    chance = random.Random(seed)
    look_ahead = LookAhead[Entry](bytes_max=1_000_000)
    backlog = [f"t{number}" for number in range(tenants) for _ in range(chance.randint(100, 200))]
    chance.shuffle(backlog)
    for number, tenant in enumerate(backlog):
        look_ahead.push((tenant, Priority.MEDIUM, number), tenant=tenant, priority=Priority.MEDIUM, size=1)

    got = Counter(tenant for tenant, _, _ in look_ahead.take(tenants * 100))

    assert all(count == pytest.approx(100, rel=0.05) for count in got.values())
    assert len(got) == tenants


@given(pushes, st.lists(st.integers(1, 9), max_size=20), st.integers(1, 400))
def test_nothing_is_lost_or_doubled_and_each_line_keeps_its_order(
    incoming: list[tuple[str, Priority, int]], takes: list[int], bytes_max: int
) -> None:
    look_ahead = LookAhead[Entry](bytes_max=bytes_max)
    accepted: list[Entry] = []
    sizes: dict[Entry, int] = {}
    got: list[Entry] = []
    pending_takes = list(takes)

    for number, (tenant, priority, size) in enumerate(incoming):
        entry = (tenant, priority, number)
        held_before = look_ahead.bytes
        fits = held_before + size <= bytes_max or not len(look_ahead)
        assert look_ahead.push(entry, tenant=tenant, priority=priority, size=size) == fits
        if fits:
            accepted.append(entry)
            sizes[entry] = size
        if pending_takes and number % 3 == 2:
            count, before = pending_takes.pop(), len(look_ahead)
            taken = look_ahead.take(count)
            # Work-conserving: it gives as many as are asked for, or all it has.
            assert len(taken) == min(count, before)
            got += taken
        rest = [entry for entry in accepted if entry not in got]
        assert look_ahead.bytes == sum(sizes[entry] for entry in rest)
        assert look_ahead.tenants().keys() == {tenant for tenant, _, _ in rest}
    got += look_ahead.take(len(incoming) + 1)

    assert sorted(got) == sorted(accepted)
    assert (len(look_ahead), look_ahead.bytes, look_ahead.tenants()) == (0, 0, {})
    lines: dict[tuple[str, Priority], list[int]] = defaultdict(list)
    for tenant, priority, number in got:
        lines[tenant, priority].append(number)
    assert all(earlier < later for line in lines.values() for earlier, later in pairwise(line))


def test_a_full_look_ahead_refuses_and_an_empty_one_takes_anything() -> None:
    look_ahead = LookAhead[Entry](bytes_max=100)

    assert look_ahead.push(("a", Priority.LOW, 0), tenant="a", priority=Priority.LOW, size=500)
    assert not look_ahead.push(("b", Priority.LOW, 1), tenant="b", priority=Priority.LOW, size=1)
    look_ahead.take(1)
    assert look_ahead.push(("b", Priority.LOW, 1), tenant="b", priority=Priority.LOW, size=1)


def test_the_tenant_above_its_share_sheds_its_newest_lowest_work_first() -> None:
    look_ahead = LookAhead[Entry](bytes_max=100)
    fill(look_ahead, "big", Priority.HIGH, 60)
    fill(look_ahead, "big", Priority.LOW, 20)
    fill(look_ahead, "small", Priority.LOW, 20)

    shed = look_ahead.shed(25)

    assert shed == [("big", Priority.HIGH, number) for number in range(55, 60)] + [
        ("big", Priority.LOW, number) for number in range(20)
    ]
    assert look_ahead.bytes == 75
    assert look_ahead.tenants() == {"big": 55, "small": 20}


def test_nobody_sheds_below_its_share() -> None:
    look_ahead = LookAhead[Entry](bytes_max=100)
    fill(look_ahead, "a", Priority.LOW, 50)
    fill(look_ahead, "b", Priority.LOW, 50)

    assert look_ahead.shed(10) == []
    # A third tenant at the door makes the shares smaller.
    assert len(look_ahead.shed(10, newcomers=1)) == 10


def test_a_tenant_of_double_weight_has_a_double_share() -> None:
    look_ahead = LookAhead[Entry](bytes_max=90)
    look_ahead.set_weights({"a": 2})
    fill(look_ahead, "a", Priority.LOW, 60)
    fill(look_ahead, "b", Priority.LOW, 30)

    assert look_ahead.shed(30) == []


def test_an_empty_look_ahead_sheds_nothing() -> None:
    assert LookAhead[Entry](bytes_max=10).shed(10) == []
    assert LookAhead[Entry](bytes_max=10).take(5) == []


@given(pushes, st.integers(1, 500), st.integers(0, 3))
def test_shedding_stops_at_the_share_and_keeps_every_line_in_order(
    incoming: list[tuple[str, Priority, int]], wanted: int, newcomers: int
) -> None:
    look_ahead = LookAhead[Entry](bytes_max=400)
    sizes: dict[Entry, int] = {}
    for number, (tenant, priority, size) in enumerate(incoming):
        if look_ahead.push((tenant, priority, number), tenant=tenant, priority=priority, size=size):
            sizes[tenant, priority, number] = size
    before = look_ahead.tenants()

    shed = look_ahead.shed(wanted, newcomers=newcomers)

    free = 400 - look_ahead.bytes
    share = 400 / (len(before) + newcomers) if before else 400
    assert free >= min(wanted, 400) or all(held <= share for held in look_ahead.tenants().values())
    for entry in shed:
        assert before[entry[0]] > share
    kept = look_ahead.take(len(incoming))
    assert sorted(kept + shed) == sorted(sizes)
    for tenant, priority, number in kept:
        assert all(other > number for t, p, other in shed if (t, p) == (tenant, priority))


@given(pushes, st.integers(1, 6))
def test_what_is_removed_is_gone_and_the_rest_stays(incoming: list[tuple[str, Priority, int]], modulus: int) -> None:
    look_ahead = LookAhead[Entry](bytes_max=1_000_000)
    entries = []
    for number, (tenant, priority, size) in enumerate(incoming):
        entries.append((tenant, priority, number))
        look_ahead.push(entries[-1], tenant=tenant, priority=priority, size=size)
    gone = {entry for entry in entries if entry[2] % modulus == 0}

    removed = look_ahead.remove(lambda entry: entry in gone)

    assert sorted(removed) == sorted(gone)
    assert look_ahead.bytes == sum(size for number, (_, _, size) in enumerate(incoming) if number % modulus)
    assert sorted(look_ahead.take(len(entries))) == sorted(set(entries) - gone)
    assert look_ahead.tenants() == {}


def test_a_removed_tenant_leaves_with_everything_in_its_order() -> None:
    look_ahead = filled(("a", Priority.LOW, 2), ("b", Priority.LOW, 3), ("a", Priority.CRITICAL, 2))
    look_ahead.take(1)

    assert look_ahead.remove_tenant("a") == [
        ("a", Priority.CRITICAL, 1),
        ("a", Priority.LOW, 0),
        ("a", Priority.LOW, 1),
    ]
    assert look_ahead.remove_tenant("nobody") == []
    assert look_ahead.tenants() == {"b": 3}
    assert (look_ahead.waiting(Priority.LOW), look_ahead.waiting(Priority.CRITICAL)) == (3, 0)
    assert tenants_of(look_ahead.take(9)) == "bbb"
