"""The table of topics: what operators, direct producers and dashboards rely on by name."""

import pytest

from barnabas.contract import topics
from barnabas.contract.topics import Topic
from barnabas.domain.jobs import Priority
from barnabas.domain.tiers import next_tier

_DAY_MS = 86_400_000
every_topic = pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.name)


def test_the_names_and_retentions_are_those_of_the_design() -> None:
    days = {topic.name.removeprefix("barnabas."): topic.retention_ms / _DAY_MS for topic in topics.ALL}

    assert days == {
        "intake": 1,
        "intake.rejected": 1,
        "jobs.low": 3,
        "jobs.medium": 3,
        "jobs.high": 3,
        "jobs.critical": 3,
        "retries": 3,
        "delay.1s": 1,
        "delay.5s": 1,
        "delay.30s": 1,
        "delay.2m": 1,
        "delay.10m": 1,
        "delay.1h": 1,
        "results": 7,
        "deliveries.retry": 3,
        "jobs.dlq": 30,
        "deliveries.dlq": 30,
    }


@every_topic
def test_a_topic_is_of_the_product_and_keyed_by_tenant(topic: Topic) -> None:
    assert topic.name.startswith("barnabas.")
    assert topic.key == "tenant"
    assert topics.BY_NAME[topic.name] is topic


@every_topic
def test_every_topic_has_the_same_number_of_partitions(topic: Topic) -> None:
    # Results and deliveries.retry must be co-partitioned; a tenant's records stay together in all of them.
    assert topic.partitions == 24


@every_topic
def test_a_topic_throws_old_records_away_and_keeps_what_it_was_sent(topic: Topic) -> None:
    assert topic.config["cleanup.policy"] == "delete"
    assert topic.config["retention.ms"] == str(topic.retention_ms)
    assert all(isinstance(value, str) for value in topic.config.values())


def test_only_delay_tiers_carry_the_brokers_time() -> None:
    stamped = {topic for topic in topics.ALL if topic.config.get("message.timestamp.type") == "LogAppendTime"}

    assert stamped == set(topics.DELAY_TIERS)


def test_a_tiers_name_is_its_delay() -> None:
    seconds = {"s": 1, "m": 60, "h": 3600}

    for tier in topics.DELAY_TIERS:
        label = tier.name.rsplit(".", 1)[-1]
        assert tier.delay_seconds == int(label[:-1]) * seconds[label[-1]]


def test_tiers_are_sorted_and_outlive_their_delay() -> None:
    delays = [tier.delay_seconds for tier in topics.DELAY_TIERS]

    assert delays == sorted(set(delays))
    assert all(tier.retention_ms > 10 * tier.delay_seconds * 1000 for tier in topics.DELAY_TIERS)


def test_jobs_topics_are_indexed_by_priority() -> None:
    assert [topic.name.rsplit(".", 1)[-1] for topic in topics.JOBS] == [priority.label for priority in Priority]
    assert tuple(priority.label for priority in Priority) == topics.PRIORITY_NAMES


def test_every_delay_of_up_to_an_hour_finds_a_tier() -> None:
    delays = [tier.delay_seconds for tier in topics.DELAY_TIERS]

    chosen = {next_tier(float(rest), delays) for rest in range(1, 3601)}

    assert chosen == set(delays), "a tier that nothing travels through, or a delay without one"


@pytest.mark.parametrize("name", ["a", "0", "gpu", "low", "dlq", "a-b", "gpu-2", "x" * 32])
def test_a_queue_has_four_topics_like_those_of_the_default(name: str) -> None:
    assert topics.is_queue_name(name)
    made = topics.topics_of_queue(name)

    assert [topic.name for topic in made] == [f"barnabas.jobs.{name}.{label}" for label in topics.PRIORITY_NAMES]
    assert [topics.job_topic(name, priority) for priority in range(4)] == [topic.name for topic in made]
    assert {(topic.partitions, topic.retention_ms) for topic in made} == {(24, topics.JOBS[0].retention_ms)}
    assert not {topic.name for topic in made} & topics.BY_NAME.keys()


def test_the_default_queue_has_the_topics_without_a_queues_name() -> None:
    assert topics.topics_of_queue("default") == topics.JOBS
    assert topics.topics_of_queues(["default", "gpu"])[4].name == "barnabas.jobs.gpu.low"


@pytest.mark.parametrize("name", ["", "-", "-a", "a-", "A", "a_b", "a.b", "a/b", "ä", "a\n", "a b", "x" * 33])
def test_what_is_no_part_of_a_topics_name_is_no_queue(name: str) -> None:
    assert not topics.is_queue_name(name)
