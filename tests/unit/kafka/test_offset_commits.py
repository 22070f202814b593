"""Whatever becomes of single commits, the newest offset of each partition is committed in the end."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from barnabas.kafka.offset_commits import OffsetCommits
from barnabas.kafka.partitions import TopicPartition

_PLACES = [TopicPartition("results", number) for number in range(3)]


class _Group:
    """A client and the group behind it: commits wait until they are answered, one after the other."""

    def __init__(self) -> None:
        self.on_their_way: list[list[Any]] = []
        self.committed: dict[TopicPartition, int] = {}
        self.refuses = False

    def commit(self, offsets: list[Any], *, asynchronous: bool) -> None:
        assert asynchronous
        if self.refuses:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.on_their_way.append(offsets)

    def answer(self, commits: OffsetCommits, *, fails: bool) -> None:
        """The oldest commit arrives, or fails."""
        offsets = self.on_their_way.pop(0)
        if not fails:
            self.committed |= {TopicPartition(each.topic, each.partition): each.offset for each in offsets}
        error = KafkaError(KafkaError.STALE_MEMBER_EPOCH) if fails else None
        answers = [
            SimpleNamespace(topic=each.topic, partition=each.partition, offset=each.offset, error=None)
            for each in offsets
        ]
        commits.answered(error, answers)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def pass_time() -> None:
        now[0] += 10.0

    return pass_time


def test_a_commit_that_fails_behind_another_is_sent_again(later: Callable[[], None]) -> None:
    group, commits = _Group(), OffsetCommits("group", dict.fromkeys(_PLACES, 1))
    commits.add({_PLACES[0]: (1, 5)})
    commits.send_if_due(group)
    later()
    commits.add({_PLACES[1]: (1, 7)})
    commits.send_if_due(group)
    group.answer(commits, fails=True)
    group.answer(commits, fails=False)
    later()
    commits.send_if_due(group)
    group.answer(commits, fails=False)

    assert group.committed == {_PLACES[0]: 5, _PLACES[1]: 7}


def test_an_older_commit_that_fails_never_goes_behind_a_newer_one(later: Callable[[], None]) -> None:
    group, commits = _Group(), OffsetCommits("group", dict.fromkeys(_PLACES, 1))
    for offset in (5, 6):
        commits.add({_PLACES[0]: (1, offset)})
        commits.send_if_due(group)
        later()
    group.answer(commits, fails=True)
    group.answer(commits, fails=False)
    later()
    commits.send_if_due(group)
    while group.on_their_way:
        group.answer(commits, fails=False)

    assert group.committed == {_PLACES[0]: 6}


def test_what_was_to_be_committed_for_a_partition_that_has_gone_is_not_sent_again(later: Callable[[], None]) -> None:
    epochs = dict.fromkeys(_PLACES, 1)
    group, commits = _Group(), OffsetCommits("group", epochs)
    commits.add({_PLACES[0]: (1, 5)})
    commits.send_if_due(group)
    del epochs[_PLACES[0]]
    commits.forget(_PLACES[0])
    group.answer(commits, fails=True)
    later()
    commits.send_if_due(group)

    assert not group.on_their_way


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 2)),
            st.tuples(st.just("send"), st.booleans()),
            st.tuples(st.just("answer"), st.booleans()),
        ),
        max_size=60,
    )
)
def test_the_newest_offset_of_each_partition_is_committed_in_the_end(moves: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = [1_000.0]
        patch.setattr(time, "monotonic", lambda: now[0])
        group, commits = _Group(), OffsetCommits("group", dict.fromkeys(_PLACES, 1))
        asked: dict[TopicPartition, int] = {}
        for number, (move, chance) in enumerate(moves):
            now[0] += 10.0
            if move == "add":
                asked[_PLACES[chance]] = number
                commits.add({_PLACES[chance]: (1, number)})
            elif move == "send":
                group.refuses = bool(chance)
                commits.send_if_due(group)
            elif group.on_their_way:
                group.answer(commits, fails=bool(chance))
        group.refuses = False
        for _ in range(3):
            now[0] += 10.0
            commits.send_if_due(group)
            while group.on_their_way:
                group.answer(commits, fails=False)

    assert group.committed == asked
