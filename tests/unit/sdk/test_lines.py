"""Lines of tenants before a few places, with names for waiters and a clock that stands where it is put."""

import random
from collections import Counter
from typing import Any
from uuid import UUID

from barnabas.sdk.lines import Lines

A, B, C, D = (UUID(int=number) for number in range(1, 5))
NAMES = dict(zip((A, B, C, D), "ABCD", strict=True))


def wait(lines: Lines[str], tenant_id: UUID, count: int = 1, *, now: float = 0.0) -> None:
    for number in range(count):
        lines.join(tenant_id, f"{NAMES[tenant_id]}{number}", now=now)


def serve(lines: Lines[str], count: int = 1, *, runs: bool = False) -> str:
    """Give so many places away, one after the other, and say whose they were; each ends at once unless it runs on."""
    served = ""
    for _ in range(count):
        first = lines.first()
        assert first is not None
        lines.start(first[0])
        if not runs:
            lines.end(first[0], now=0.0)
        served += NAMES[first[0]]
    return served


def is_full(lines: Lines[Any], tenant_id: UUID, *, waiters_max: int = 4, tenants_max: int = 100) -> bool:
    return lines.is_full_for(tenant_id, waiters_max=waiters_max, tenants_max=tenants_max)


def test_a_tenants_own_wait_in_the_order_of_their_coming() -> None:
    lines: Lines[str] = Lines()
    wait(lines, A, 3)
    came = []
    while (first := lines.first()) is not None:
        came.append(first[1])
        lines.start(A)

    assert came == ["A0", "A1", "A2"]


def test_tenants_take_turns_however_many_wait_of_each() -> None:
    lines: Lines[str] = Lines()
    wait(lines, A, 6)
    wait(lines, B, 2)
    wait(lines, C, 3)

    assert serve(lines, 11) == "ABCABCACAAA"


def test_a_newcomer_goes_before_whoever_had_the_last_turn_and_behind_all_that_wait_for_theirs() -> None:
    lines: Lines[str] = Lines()
    wait(lines, A, 3)
    wait(lines, B, 3)
    served = serve(lines, 2)
    wait(lines, C)

    assert served + serve(lines, 5) == "AB" + "ACBAB"


def test_an_endless_stream_of_newcomers_keeps_nobody_from_its_turn() -> None:
    lines: Lines[int] = Lines()
    lines.join(A, 0, now=0.0)
    lines.join(A, 1, now=0.0)
    served = []
    for number in range(10):
        first = lines.first()
        assert first is not None
        lines.start(first[0])
        lines.end(first[0], now=0.0)
        served.append(first[0])
        for newcomer in (2 * number, 2 * number + 1):
            lines.join(UUID(int=100 + newcomer), newcomer, now=0.0)

    assert [index for index, tenant_id in enumerate(served) if tenant_id == A] == [0, 3]


def test_places_that_are_held_count_before_the_turn() -> None:
    lines: Lines[str] = Lines()
    wait(lines, A, 10)
    held = serve(lines, 4, runs=True)
    wait(lines, B, 10)
    for ending in (A, A, A):
        lines.end(ending, now=0.0)
        held += serve(lines, runs=True)

    # Then each holds two of four, and the one whose turn is longest ago is next.
    assert held == "AAAA" + "BBA"


def test_a_tenant_that_left_without_its_turn_keeps_it_for_half_a_minute() -> None:
    for seconds, expected in ((29.0, "BCA"), (31.0, "CBA")):
        lines: Lines[str] = Lines()
        wait(lines, A, 2)
        serve(lines, runs=True)
        wait(lines, B)
        wait(lines, C)
        lines.leave(B, "B0", now=0.0)
        wait(lines, B, now=seconds)
        lines.end(A, now=seconds)

        assert serve(lines, 3) == expected


def test_what_is_kept_of_tenants_that_left_is_bounded() -> None:
    lines: Lines[int] = Lines()
    for number in range(10_000):
        lines.join(UUID(int=number), number, now=0.0)
        lines.leave(UUID(int=number), number, now=0.0)

    assert len(lines) == 0
    assert len(lines._left) <= 4_096


def test_leaving_twice_or_after_the_turn_changes_nothing() -> None:
    lines: Lines[str] = Lines()
    wait(lines, A, 2)
    lines.leave(A, "A1", now=0.0)
    lines.leave(A, "A1", now=0.0)
    lines.leave(B, "B0", now=0.0)
    serve(lines, runs=True)
    lines.leave(A, "A0", now=0.0)

    assert (len(lines), lines.first()) == (0, None)
    lines.end(A, now=0.0)


def test_a_full_line_is_its_own_tenants_matter() -> None:
    lines: Lines[str] = Lines()
    wait(lines, A, 4)

    assert [is_full(lines, tenant_id) for tenant_id in (A, B)] == [True, False]


def test_tenants_that_wait_have_equal_parts_and_one_each_in_any_case() -> None:
    lines: Lines[str] = Lines()
    wait(lines, A, 1)
    wait(lines, B, 1)
    before = is_full(lines, A)
    wait(lines, B, 1)
    wait(lines, C, 1)

    assert not before
    # One of four is the part of each of three.
    assert [is_full(lines, tenant_id) for tenant_id in (A, B, C, D)] == [True, True, True, False]
    assert is_full(lines, D, tenants_max=3)


def test_the_whole_is_bounded_whoever_comes_in_whatever_order() -> None:
    chance = random.Random(7)
    lines: Lines[int] = Lines()
    waiters_max, tenants_max = 16, 128
    waiting: list[tuple[UUID, int]] = []
    most: Counter[str] = Counter()
    for number in range(20_000):
        tenant_id = UUID(int=chance.randrange(200))
        if waiting and chance.random() < 0.2:
            gone = waiting.pop(chance.randrange(len(waiting)))
            lines.leave(*gone, now=0.0)
        elif not is_full(lines, tenant_id, waiters_max=waiters_max, tenants_max=tenants_max):
            lines.join(tenant_id, number, now=0.0)
            waiting.append((tenant_id, number))
        most["waiters"] = max(most["waiters"], len(lines))
        most["tenants"] = max(most["tenants"], len({tenant_id for tenant_id, _ in waiting}))

    bound = waiters_max * sum(1 / n for n in range(1, tenants_max + 1)) + tenants_max
    assert most["tenants"] == tenants_max
    assert most["waiters"] <= bound
