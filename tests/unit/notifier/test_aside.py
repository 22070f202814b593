"""What waits for the next question, what doesn't, and for how long."""

from barnabas.contract import topics
from barnabas.kafka.partitions import ConsumedRecord
from barnabas_notifier.aside import HOLD_SECONDS, Aside


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(key: bytes | None, *, offset: int = 0, topic: str = topics.RESULTS.name) -> ConsumedRecord:
    return ConsumedRecord(topic, 0, offset, key, b"", (), 0, 1)


def test_events_of_who_is_not_known_go_on_at_once() -> None:
    aside = Aside()
    records = [record(b"a"), record(None)]

    assert aside.put(records) == records
    assert not aside


def test_events_of_who_had_no_endpoint_wait_for_the_next_question_and_no_others_do() -> None:
    clock = Clock()
    aside = Aside(monotonic=clock)
    aside.learn([b"a", b"b"], without=[b"a"])
    quiet, other = record(b"a"), record(b"b")
    retry = record(b"a", topic=topics.DELIVERIES_RETRY.name)

    assert aside.put([quiet, other, retry]) == [other, retry]
    assert len(aside) == 1
    assert aside.rest_seconds == HOLD_SECONDS
    assert aside.take() == []
    clock.now += HOLD_SECONDS
    assert aside.rest_seconds == 0
    assert aside.take() == [quiet]
    assert not aside


def test_the_wait_counts_from_the_first_event() -> None:
    clock = Clock()
    aside = Aside(monotonic=clock)
    aside.learn([b"a"], without=[b"a"])
    first, second = record(b"a"), record(b"a", offset=1)
    aside.put([first])
    clock.now += HOLD_SECONDS / 2
    aside.put([second])
    clock.now = HOLD_SECONDS

    assert aside.take() == [first, second]


def test_who_has_an_endpoint_since_waits_no_more() -> None:
    aside = Aside()
    aside.learn([b"a"], without=[b"a"])
    aside.learn([b"a"], without=[])

    assert aside.put([record(b"a")]) == [record(b"a")]


def test_a_flood_is_due_before_its_time() -> None:
    aside = Aside(monotonic=Clock())
    aside.learn([b"a"], without=[b"a"])
    flood = [record(b"a", offset=offset) for offset in range(5_000)]
    aside.put(flood)

    assert aside.rest_seconds == 0
    assert aside.take() == flood
