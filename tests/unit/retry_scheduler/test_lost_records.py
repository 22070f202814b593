"""When a record counts as lost in Kafka: never by its age."""

from uuid import UUID

from confluent_kafka import murmur2

from barnabas.contract.telling import tenant_key
from barnabas.kafka.lag import PartitionLag
from barnabas.kafka.partitions import TopicPartition
from barnabas_retry_scheduler.lost_records import Horizons, LostRecords, Resent

TOPIC = "barnabas.jobs.medium"
HOUR = 3_600.0
NOW = 1_800_000_000.0


def horizons(*, oldest_unread: dict[int, float], partitions: int = 24) -> Horizons:
    lags = [PartitionLag(TOPIC, n, 0, 0, 1 if n in oldest_unread else 0) for n in range(partitions)]
    oldest = {
        each.at: int(oldest_unread[each.partition] * 1_000) if each.partition in oldest_unread else None
        for each in lags
    }
    return Horizons(lags, oldest, measured_at=NOW)


def test_the_jobs_of_a_backlog_are_not_lost_however_old_they_are() -> None:
    lost = LostRecords()
    # The backlog began two hours ago; the oldest of it is what the workers read next.
    horizon = horizons(oldest_unread=dict.fromkeys(range(24), NOW - 2 * HOUR))
    tenant = tenant_key(UUID(int=7))
    found = sum(
        lost.is_lost(TOPIC, in_kafka_since=NOW - 2 * HOUR + n * 2 * HOUR / 50_000, horizon=horizon.of(TOPIC, tenant))
        for n in range(50_000)
    )

    assert found == 0


def test_a_job_that_became_ready_well_before_the_oldest_unread_record_is_lost() -> None:
    lost = LostRecords()
    key = tenant_key(UUID(int=7))
    partition = murmur2(key, 24)
    horizon = horizons(oldest_unread={partition: NOW - 100.0}).of(TOPIC, key)

    assert not lost.is_lost(TOPIC, in_kafka_since=NOW - 129.0, horizon=horizon)
    assert lost.is_lost(TOPIC, in_kafka_since=NOW - 131.0, horizon=horizon)


def test_where_everything_has_been_read_what_is_older_than_the_margin_is_lost() -> None:
    lost = LostRecords()
    horizon = horizons(oldest_unread={}).of(TOPIC, b"any")

    assert lost.is_lost(TOPIC, in_kafka_since=NOW - 31.0, horizon=horizon)
    assert not lost.is_lost(TOPIC, in_kafka_since=NOW - 29.0, horizon=horizon)


def test_another_partitions_backlog_says_nothing_about_a_key() -> None:
    key = tenant_key(UUID(int=7))
    others = {n: NOW - HOUR for n in range(24) if n != murmur2(key, 24)}

    assert horizons(oldest_unread=others).of(TOPIC, key) == NOW


def test_without_the_topic_nothing_is_judged() -> None:
    assert not LostRecords().is_lost("gone", in_kafka_since=0.0, horizon=horizons(oldest_unread={}).of("gone", b"any"))


def test_a_producers_clock_that_runs_ahead_does_not_make_the_present_lost() -> None:
    key = tenant_key(UUID(int=7))

    assert horizons(oldest_unread={murmur2(key, 24): NOW + HOUR}).of(TOPIC, key) == NOW


def test_jobs_that_waited_in_the_outbox_are_as_young_as_their_record() -> None:
    lost = LostRecords()
    lost.told_late(from_at=NOW - 700.0, until_at=NOW - 100.0, told_at=NOW - 60.0)

    assert lost.in_kafka_since(NOW - 400.0) == NOW - 60.0
    assert lost.in_kafka_since(NOW - 800.0) == NOW - 800.0
    assert lost.in_kafka_since(NOW - 50.0) == NOW - 50.0


def test_an_hour_of_outbox_worked_off_in_batches_is_a_bounded_memory() -> None:
    lost = LostRecords()
    for n in range(10_000):
        lost.told_late(from_at=NOW - HOUR + n * 0.3, until_at=NOW - HOUR + (n + 1) * 0.3, told_at=NOW + n * 0.02)

    assert lost.in_kafka_since(NOW - HOUR + 2_999.0) > NOW
    assert len(lost._late) <= 200


def test_a_wiped_topic_has_lost_everything_from_before_it_was_noticed() -> None:
    lost = LostRecords()
    lost.topic_wiped(TOPIC, NOW)
    unread = NOW - HOUR

    assert lost.is_lost(TOPIC, in_kafka_since=NOW - 0.1, horizon=unread)
    assert not lost.is_lost(TOPIC, in_kafka_since=NOW + 0.1, horizon=unread)
    assert not lost.is_lost("barnabas.jobs.high", in_kafka_since=NOW - 0.1, horizon=unread)


def test_a_wipe_is_made_good_by_a_walk_that_began_after_it() -> None:
    lost = LostRecords()
    lost.topic_wiped(TOPIC, NOW)

    assert lost.made_good({TOPIC}, before=NOW - 1.0) == set()
    assert lost.wiped == {TOPIC}
    assert lost.made_good({TOPIC, "other"}, before=NOW + 1.0) == {TOPIC}
    assert lost.wiped == frozenset()


def test_what_was_sent_again_is_given_twice_as_much_time_each_time() -> None:
    sent: Resent[str] = Resent()
    now, waits = 0.0, []
    for _ in range(10):
        sent.note("job", now)
        wait = next(seconds for seconds in range(1, 10_000) if sent.may("job", now + seconds))
        waits.append(wait)
        now += wait

    assert waits == [30, 60, 120, 240, 480, 960, 1_920, 3_840, 3_840, 3_840]


def test_no_more_is_sent_again_than_can_be_remembered() -> None:
    sent: Resent[int] = Resent(size_max=3)
    for key in (1, 2):
        sent.note(key, NOW)

    assert sent.may(3, NOW)
    assert not sent.may(3, NOW, more=1)
    sent.note(3, NOW)
    assert not sent.may(4, NOW)
    sent.keep_only({2})
    assert sent.may(4, NOW)
    assert sent.last(1) == float("-inf")


def test_a_partition_is_found_as_java_producers_find_it() -> None:
    # The partition that Kafka's own default partitioner gives this key among 24.
    key = b"018f3c1e-7b1a-7cc0-9a55-0123456789ab"
    one = TopicPartition(TOPIC, murmur2(key, 24))
    lags = [PartitionLag(TOPIC, n, 0, 0, 0) for n in range(24)]
    oldest: dict[TopicPartition, int | None] = {each.at: None for each in lags} | {one: int((NOW - 50) * 1_000)}

    assert Horizons(lags, oldest, measured_at=NOW).of(TOPIC, key) == NOW - 50


def test_the_next_try_is_the_first_whose_interval_is_over() -> None:
    sent: Resent[str] = Resent()
    assert sent.next_at == float("inf")

    sent.note("twice", NOW - 100.0)
    sent.note("twice", NOW)
    sent.note("once", NOW + 10.0)

    assert sent.next_at == NOW + 40.0
