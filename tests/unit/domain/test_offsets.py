"""Watermarks, against a model that is too simple to be wrong."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from barnabas.domain.offsets import Offsets, OffsetTracker, TooManyOpenOffsetsError


def tracker(offsets: Iterable[int]) -> OffsetTracker:
    made = OffsetTracker()
    for offset in offsets:
        made.add(offset)
    return made


def test_nothing_is_committable_before_anything_was_resolved() -> None:
    assert tracker([]).committable() is None
    assert tracker([100, 101]).committable() is None


def test_the_lowest_open_offset_is_the_next_to_commit() -> None:
    taken = tracker([5, 6, 7, 8])

    taken.resolve(6)
    assert taken.committable() is None
    taken.resolve(5)
    assert taken.committable() == 7
    taken.resolve_many([8, 7])
    assert taken.committable() == 9


def test_gaps_between_offsets_hold_nothing_up() -> None:
    taken = tracker([3, 10, 500])

    taken.resolve(3)
    assert taken.committable() == 10
    taken.resolve_many([10, 500])
    assert taken.committable() == 501


def test_a_record_seen_before_is_not_taken_again() -> None:
    taken = tracker([1, 2])
    taken.resolve(1)

    assert not taken.add(1)
    assert not taken.add(2)
    assert taken.committable() == 2
    assert len(taken) == 1


def test_resolving_what_was_never_added_changes_nothing() -> None:
    taken = tracker([1])

    taken.resolve_many([0, 2, 99])

    assert taken.committable() is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(1, 7)), max_size=8))
def test_a_batch_is_the_same_as_one_by_one(batches: list[tuple[int, int, int]]) -> None:
    one_by_one, batched = OffsetTracker(), OffsetTracker()
    for start, count, step in batches:
        offsets = range(start, start + count * step, step)
        for offset in offsets:
            one_by_one.add(offset)
        batched.add_many(offsets)

    assert list(batched._open) == list(one_by_one._open)
    assert batched._last == one_by_one._last
    assert batched.committable() == one_by_one.committable()


def test_a_full_tracker_takes_nothing_until_something_is_resolved() -> None:
    taken = OffsetTracker(open_max=3)
    taken.add_many(range(2))

    with pytest.raises(TooManyOpenOffsetsError):
        taken.add_many(range(2, 4))
    assert taken.room == 1
    assert taken.add(2)
    with pytest.raises(TooManyOpenOffsetsError):
        taken.add(3)
    taken.resolve(1)
    assert taken.add(3)


def test_memory_does_not_grow_behind_one_open_record() -> None:
    taken = OffsetTracker(open_max=501)
    taken.add(0)
    for start in range(1, 100_001, 500):
        taken.add_many(range(start, start + 500))
        taken.resolve_many(range(start, start + 500))

    assert len(taken) == 1
    assert taken.committable() is None
    taken.resolve(0)
    assert taken.committable() == 100_001


@given(
    st.lists(st.integers(0, 500), unique=True, min_size=1)
    .map(sorted)
    .flatmap(lambda o: st.tuples(st.just(o), st.permutations(o)))
)
def test_any_order_of_verdicts_commits_up_to_the_lowest_open_record(case: tuple[list[int], list[int]]) -> None:
    offsets, order = case
    taken = tracker(offsets)
    still_open, last = set(offsets), offsets[0]

    for offset in order:
        taken.resolve(offset)
        still_open.discard(offset)
        expected = min(still_open, default=offsets[-1] + 1)
        assert taken.committable() == (None if expected == offsets[0] else expected)
        assert expected >= last
        last = expected


def test_a_verdict_of_an_earlier_assignment_never_moves_the_offset() -> None:
    offsets = Offsets()
    old = offsets.assign("jobs.low", 3)
    offsets.add_many("jobs.low", 3, epoch=old, offsets=range(10, 20))
    offsets.revoke("jobs.low", 3)
    assert not offsets.resolve("jobs.low", 3, epoch=old, offset=10)
    new = offsets.assign("jobs.low", 3)
    offsets.add_many("jobs.low", 3, epoch=new, offsets=range(10, 20))

    assert not offsets.resolve_many("jobs.low", 3, epoch=old, offsets=range(10, 20))
    assert not offsets.add("jobs.low", 3, epoch=old, offset=20)
    assert not offsets.add_many("jobs.low", 3, epoch=old, offsets=range(20, 30))

    assert offsets.committable() == {}
    assert (len(offsets), offsets.epoch("jobs.low", 3)) == (10, new)


def test_only_what_moved_since_the_last_commit_is_offered() -> None:
    offsets = Offsets()
    first, second = offsets.assign("a", 0), offsets.assign("a", 1)
    offsets.add_many("a", 0, epoch=first, offsets=range(3))
    offsets.add_many("a", 1, epoch=second, offsets=range(3))
    offsets.resolve_many("a", 0, epoch=first, offsets=[0, 1])

    assert offsets.committable() == {("a", 0): 2}
    # A commit that failed is not told, and is offered again.
    assert offsets.committable() == {("a", 0): 2}
    offsets.committed({("a", 0): 2, ("gone", 7): 5})
    assert offsets.committable() == {}
    offsets.resolve("a", 1, epoch=second, offset=0)
    assert offsets.committable() == {("a", 1): 1}


def test_a_partition_that_is_not_held_has_no_room_and_no_epoch() -> None:
    offsets = Offsets(open_max=5)

    assert (offsets.room("a", 0), offsets.epoch("a", 0)) == (0, None)
    epoch = offsets.assign("a", 0)
    offsets.add("a", 0, epoch=epoch, offset=9)
    assert offsets.room("a", 0) == 4


class Consumer(RuleBasedStateMachine):
    """One partition through rebalances: what is committed never passes an open record, and never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = Offsets()
        self.epoch = self.offsets.assign("t", 0)
        self.old_epochs: list[int] = []
        self.next = 0
        self.held: set[int] = set()
        self.committed = 0

    @rule(gap=st.integers(0, 3), count=st.integers(1, 5))
    def take(self, gap: int, count: int) -> None:
        batch = range(self.next + gap, self.next + gap + count)
        assert self.offsets.add_many("t", 0, epoch=self.epoch, offsets=batch)
        self.held.update(batch)
        self.next = batch[-1] + 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(sorted(self.held)), unique=True))
        assert self.offsets.resolve_many("t", 0, epoch=self.epoch, offsets=some)
        self.held.difference_update(some)

    @precondition(lambda self: self.old_epochs)
    @rule(data=st.data(), offset=st.integers(0, 100))
    def resolve_late(self, data: st.DataObject, offset: int) -> None:
        assert not self.offsets.resolve("t", 0, epoch=data.draw(st.sampled_from(self.old_epochs)), offset=offset)

    @rule()
    def rebalance(self) -> None:
        self.offsets.revoke("t", 0)
        self.old_epochs.append(self.epoch)
        self.epoch = self.offsets.assign("t", 0)
        self.held.clear()
        self.next = self.committed

    @rule(succeeds=st.booleans())
    def commit(self, succeeds: bool) -> None:
        offered = self.offsets.committable()
        if succeeds and offered:
            assert offered[("t", 0)] > self.committed
            self.committed = offered[("t", 0)]
            self.offsets.committed(offered)

    @invariant()
    def never_past_an_open_record(self) -> None:
        for offset in self.offsets.committable().values():
            assert offset == min(self.held, default=self.next)


TestConsumer = Consumer.TestCase
TestConsumer.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
