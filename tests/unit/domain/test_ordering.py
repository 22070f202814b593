"""Lines of an ordering key: one at a time, in the order of submission, through retries, dead letters and redrives."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from barnabas.domain.ordering import Order, OrderedLine


def line_of(*jobs: str, hold_dead: bool = False) -> OrderedLine[str]:
    line = OrderedLine[str](hold_dead=hold_dead)
    for job in jobs:
        line.accept(job)
    return line


def test_the_end_of_a_job_makes_the_next_one_ready() -> None:
    line = line_of("a", "b", "c")

    assert line.orders() == {"a": Order.READY, "b": Order.BLOCKED, "c": Order.BLOCKED}
    assert not line.start("b")
    assert line.start("a")
    assert line.end("a") == ["b"]


def test_a_retry_keeps_the_line() -> None:
    line = line_of("a", "b")
    line.start("a")
    line.retry("a")

    assert not line.start("b")
    assert line.start("a")


def test_a_dead_letter_lets_the_next_pass_or_holds_the_line() -> None:
    passing, holding = line_of("a", "b"), line_of("a", "b", hold_dead=True)
    passing.start("a")
    holding.start("a")

    assert passing.die("a") == (["b"], 1)
    assert holding.die("a") == ([], 1)
    assert holding.accept("c") == []
    assert holding.discard("a") == ["b"]
    assert passing.discard("a") == []


def test_a_redriven_job_goes_before_all_that_came_later_and_has_not_had_its_turn() -> None:
    line = line_of("a", "b", "c")
    line.start("a")
    ready, seq = line.die("a")

    assert line.redrive("a", "again", seq) == []
    assert list(line.orders()) == ["again", "b", "c"]
    line.start("b")
    assert ready == ["b"]
    assert line.end("b") == ["again"]


def test_a_redriven_job_takes_the_place_that_its_dead_letter_held() -> None:
    line = line_of("a", "b", hold_dead=True)
    line.start("a")
    _, seq = line.die("a")

    assert line.redrive("a", "again", seq) == ["again"]
    assert line.orders() == {"again": Order.READY, "b": Order.BLOCKED}


def test_a_blocked_job_that_is_cancelled_leaves_without_a_sound() -> None:
    line = line_of("a", "b", "c")

    assert line.end("b") == []
    assert line.end("a") == ["c"]


def test_a_place_of_a_job_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        line_of("a").seq_of("b")


class Lines(RuleBasedStateMachine):
    """One line; `late` are redrives that came when somebody else had its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.line = OrderedLine[int]()
        self.made = 0
        self.dead: dict[int, int] = {}
        self.late: set[int] = set()

    @initialize(hold_dead=st.booleans())
    def choose(self, hold_dead: bool) -> None:
        self.line = OrderedLine(hold_dead=hold_dead)

    @rule()
    def accept(self) -> None:
        self.made += 1
        self.note(self.line.accept(self.made))

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """Records of all jobs come at any time, also twice; only the head starts."""
        job = data.draw(st.integers(0, self.made))
        order = self.line.orders().get(job)

        assert self.line.start(job) == (order is Order.READY)
        if order is Order.READY:
            seq = self.line.seq_of(job)
            before = {other for other in self.line.orders() if self.line.seq_of(other) < seq}
            # Only a redrive that came when this one had its turn already may be before it.
            assert before <= self.late

    @precondition(lambda self: self.running())
    @rule(again=st.booleans())
    def end(self, again: bool) -> None:
        (job,) = self.running()
        if again:
            self.line.retry(job)
        else:
            self.note(self.line.end(job))

    @precondition(lambda self: self.running())
    @rule()
    def die(self) -> None:
        (job,) = self.running()
        ready, seq = self.line.die(job)
        self.dead[job] = seq
        self.note(ready)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        dead = data.draw(st.sampled_from(sorted(self.dead)))
        seq = self.dead.pop(dead)
        self.made += 1
        ready = self.line.redrive(dead, self.made, seq)
        if not ready:
            self.late.add(self.made)
        self.note(ready)
        assert self.line.seq_of(self.made) == seq

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        dead = data.draw(st.sampled_from(sorted(self.dead)))
        del self.dead[dead]
        self.note(self.line.discard(dead))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = [job for job, order in self.line.orders().items() if order in (Order.BLOCKED, Order.READY)]
        if waiting:
            self.note(self.line.end(data.draw(st.sampled_from(waiting))))

    @invariant()
    def at_most_one_has_its_turn_and_one_has_it_if_anybody_waits(self) -> None:
        orders = list(self.line.orders().values())
        turns = [order for order in orders if order is not Order.BLOCKED]
        assert len(turns) == (1 if orders else 0)

    def note(self, ready: list[int]) -> None:
        """Whoever is made ready is the first of all that are there."""
        for job in ready:
            assert next(iter(self.line.orders())) == job
            self.late.clear()

    def running(self) -> list[int]:
        return [job for job, order in self.line.orders().items() if order is Order.RUNNING]


TestLines = Lines.TestCase
TestLines.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
