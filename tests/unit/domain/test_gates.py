"""Gates as values: exact in any window, no room wasted, nobody overtaken for ever."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.gates import (
    EXACT_MAX,
    PARTS,
    REWAKE_US,
    TENANT_LINE,
    Admission,
    Asking,
    Gate,
    LineKind,
    Place,
    Seat,
    StartLog,
    admit,
    choose_moved,
    choose_woken,
    type_line,
)

WINDOW = 60_000_000
SECOND = 1_000_000

limits = st.one_of(st.integers(1, 12), st.integers(EXACT_MAX - 1, EXACT_MAX + 2), st.integers(150, 900))


def starts_in_worst_window(times: list[int], window: int) -> int:
    """The most that any window [t, t + window) holds: one that begins with a start."""
    ordered = sorted(times)
    most = last = 0
    for first, begin in enumerate(ordered):
        while last < len(ordered) and ordered[last] < begin + window:
            last += 1
        most = max(most, last - first)
    return most


# The log ------------------------------------------------------------------------------------------------------------


@given(limits, st.integers(1, 120 * SECOND), st.lists(st.tuples(st.integers(0, 40 * SECOND), st.integers(1, 400))))
def test_no_window_ever_holds_more_starts_than_allowed(allowed: int, window: int, asks: list[tuple[int, int]]) -> None:
    log = StartLog(starts_allowed=allowed, window_us=window)
    at, times = 1_700_000_000 * SECOND, []

    for wait, wanted in asks:
        at += wait
        starts = min(wanted, log.room(at))
        log = log.add(at, starts)
        times += [at] * starts

    assert starts_in_worst_window(times, window) <= allowed
    assert all(earlier[0] < later[0] for earlier, later in pairwise(log.entries))
    assert len(log.entries) <= max(EXACT_MAX, PARTS + 2)


@given(st.integers(1, 1_000), st.integers(0, 10**9))
def test_a_saturated_log_starts_at_least_98_percent_of_what_is_allowed(allowed: int, seed: int) -> None:
    chance, windows = random.Random(seed), 30
    log = StartLog(starts_allowed=allowed, window_us=WINDOW)
    begun = at = 1_700_000_000 * SECOND + chance.randrange(WINDOW)
    started = 0

    while (at := log.opens_at(at)) < begun + windows * WINDOW:
        starts = chance.randint(1, log.room(at))
        log = log.add(at, starts)
        started += starts

    assert 0.98 * allowed * windows <= started <= allowed * windows


@given(limits, st.lists(st.tuples(st.integers(-50 * SECOND, 50 * SECOND), st.integers(1, 50)), max_size=40))
def test_a_clock_that_is_set_back_never_admits_more(allowed: int, moves: list[tuple[int, int]]) -> None:
    log = StartLog(starts_allowed=allowed, window_us=WINDOW)
    true_time, set_back, times = 0, 0, []

    for move, wanted in moves:
        if move >= 0:
            true_time += move
        else:
            set_back += -move
        at = 1_700_000_000 * SECOND + true_time - set_back
        starts = min(wanted, log.room(at))
        log = log.add(at, starts)
        times += [true_time] * starts

    assert starts_in_worst_window(times, WINDOW) <= allowed


@given(limits, st.integers(0, 2 * WINDOW), st.lists(st.tuples(st.integers(0, SECOND), st.integers(1, 9)), max_size=30))
def test_it_opens_when_it_says_and_not_a_microsecond_earlier(
    allowed: int, later: int, asks: list[tuple[int, int]]
) -> None:
    log, at = StartLog(starts_allowed=allowed, window_us=WINDOW), 10**15
    for wait, wanted in asks:
        at += wait
        log = log.add(at, min(wanted, log.room(at)))

    opens = log.opens_at(at + later)

    assert log.room(opens) > 0
    assert opens == at + later or log.room(opens - 1) == 0


def test_a_lowered_rate_opens_when_enough_starts_have_left_the_window() -> None:
    log = StartLog(starts_allowed=3, window_us=100)
    for at in (10, 20, 30):
        log = log.add(at, 1)

    lowered = StartLog(starts_allowed=1, window_us=100, entries=log.entries)

    assert (lowered.room(30), lowered.opens_at(30)) == (0, 130)


@pytest.mark.parametrize(
    ("gate", "room"),
    [
        (Gate(), None),
        (Gate(allowed=3, used=1), 2),
        (Gate(allowed=3, used=7), 0),
        (Gate(log=StartLog(starts_allowed=4, entries=((5, 1),))), 3),
        (Gate(allowed=3, used=1, log=StartLog(starts_allowed=4, entries=((5, 4),))), 0),
        (Gate(allowed=2, used=1, log=StartLog(starts_allowed=4, entries=((5, 1),))), 1),
    ],
)
def test_room_is_what_the_narrowest_limit_leaves(gate: Gate, room: int | None) -> None:
    assert gate.room(10) == room


# The admission ------------------------------------------------------------------------------------------------------


def judge(
    *asking: Asking[str],
    tenant: Gate | None = None,
    types: dict[int, Gate] | None = None,
    tenant_head: Place | None = None,
    type_head: Place | None = None,
) -> Admission[str]:
    heads = {TENANT_LINE: tenant_head, type_line(1): type_head}
    return admit(
        asking,
        tenant_gate=tenant,
        type_gates=types or {},
        heads={line: head for line, head in heads.items() if head is not None},
        at=0,
    )


def test_a_job_without_a_limit_starts() -> None:
    assert judge(Asking("a", 2, 1)).started == ["a"]


def test_the_most_urgent_of_a_batch_gets_the_room() -> None:
    verdict = judge(Asking("low", 3, 1), Asking("high", 1, 1), Asking("too", 1, 1), tenant=Gate(allowed=1))

    assert verdict.started == ["high"]
    assert verdict.waits == {"low": TENANT_LINE, "too": TENANT_LINE}


def test_a_newcomer_goes_behind_those_who_wait_however_urgent_it_is() -> None:
    critical = Asking("new", 0, 1)

    assert judge(critical, tenant=Gate(allowed=5), tenant_head=(2, 1)).waits == {"new": TENANT_LINE}
    assert judge(critical, types={1: Gate(allowed=5)}, type_head=(2, 1)).waits == {"new": type_line(1)}


def test_the_type_s_gate_comes_first_and_takes_no_room_of_the_tenant_s() -> None:
    verdict = judge(
        Asking("a", 2, 1), Asking("b", 2, 1), Asking("c", 2, 2), tenant=Gate(allowed=2), types={1: Gate(allowed=1)}
    )

    assert verdict.started == ["a", "c"]
    assert verdict.waits == {"b": type_line(1)}


def test_a_job_that_moves_between_lines_is_in_turn_where_its_place_is_before_the_head() -> None:
    moved = Asking("moved", 2, 1, Seat(TENANT_LINE, 3, woken_at=0))

    assert judge(moved, types={1: Gate(allowed=1)}, type_head=(2, 4)).started == ["moved"]
    assert judge(moved, types={1: Gate(allowed=1)}, type_head=(2, 2)).waits == {"moved": type_line(1)}
    assert judge(moved, types={1: Gate(allowed=1)}, type_head=(1, 9)).waits == {"moved": type_line(1)}


def test_a_woken_job_of_a_line_is_in_turn_at_it_whoever_came_before_it_since() -> None:
    woken = Asking("woken", 2, 1, Seat(TENANT_LINE, 3, woken_at=0))
    asleep = Asking("asleep", 2, 1, Seat(TENANT_LINE, 3))

    assert judge(woken, tenant=Gate(allowed=1), tenant_head=(0, 9)).started == ["woken"]
    assert judge(asleep, tenant=Gate(allowed=1), tenant_head=(0, 9)).waits == {"asleep": TENANT_LINE}


def test_a_job_of_the_backlog_comes_before_those_who_arrived_at_the_gate_after_it() -> None:
    early, late = (Asking(str(seq), 2, 1, Seat((LineKind.BACKLOG, 0), seq)) for seq in (3, 8))

    assert judge(early, late, tenant=Gate(allowed=2), tenant_head=(2, 5)).started == ["3"]


def test_a_gate_whose_limit_was_taken_away_holds_nobody() -> None:
    assert judge(Asking("new", 2, 1), tenant=Gate(used=3), tenant_head=(2, 1)).started == ["new"]


def test_of_a_line_the_first_are_woken_once_and_again_when_they_were_not_heard_of() -> None:
    line = [("a", Seat(TENANT_LINE, 1, woken_at=50)), ("b", Seat(TENANT_LINE, 2)), ("c", Seat(TENANT_LINE, 3))]

    assert choose_woken(line, room=2, at=60) == ["b"]
    assert choose_woken(line, room=0, at=60) == []
    assert choose_woken(line, room=1, at=51 + REWAKE_US) == ["a"]


def move(*line: Asking[str], room: int, type_head: Place | None = None) -> list[str]:
    """Who of a line moves away, where of type 1 two more may run."""
    heads = {} if type_head is None else {type_line(1): type_head}
    return choose_moved(line, room=room, type_gates={1: Gate(allowed=2), 3: Gate()}, heads=heads, at=2 * REWAKE_US)


def seated(job: str, seq: int, *, type_id: int = 1, woken_at: int | None = None) -> Asking[str]:
    return Asking(job, 2, type_id, Seat(TENANT_LINE, seq, woken_at))


def test_those_without_room_at_their_type_s_gate_make_way_where_they_would_be_woken() -> None:
    line = [seated("a", 1), seated("b", 2), seated("c", 3), seated("z", 4, type_id=2), seated("d", 5)]

    assert move(*line, room=3) == ["c", "d"]
    assert move(*line, room=2) == []
    assert move(*line, room=0) == []


def test_who_is_on_its_way_keeps_its_place_and_its_room() -> None:
    awake, lost = 2 * REWAKE_US - 1, REWAKE_US - 1
    first, second = seated("a", 1, woken_at=awake), seated("b", 2, woken_at=awake)

    assert move(first, second, seated("c", 3), room=3) == ["c"]
    assert move(first, second, seated("c", 3, woken_at=awake), seated("d", 4), room=3) == []
    assert move(first, second, seated("c", 3, woken_at=lost), room=3) == ["c"]


def test_who_comes_after_the_head_of_its_type_s_line_goes_there() -> None:
    assert move(seated("a", 1), seated("c", 3), room=2, type_head=(2, 2)) == ["c"]
    assert move(seated("a", 1), seated("c", 3), room=2, type_head=(1, 9)) == ["a", "c"]


def test_a_type_without_a_limit_moves_nobody() -> None:
    assert move(*(seated(str(seq), seq, type_id=type_id) for seq in range(9) for type_id in (2, 3)), room=9) == []
