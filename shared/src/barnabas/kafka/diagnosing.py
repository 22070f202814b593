"""What `barnabas doctor` asks Kafka, as the facts that `domain.doctor` judges: topics and lag. Changes nothing."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from barnabas.contract import topics as table
from barnabas.contract.topics import Topic
from barnabas.domain.doctor import Lag, Topics
from barnabas.kafka.admin import Admin
from barnabas.kafka.lag import lag, oldest_unread_timestamp_ms

_LIMIT_SECONDS = 10.0


async def read_topics(bootstrap: str, *, queues: Sequence[str], known: Mapping[str, tuple[str, str]]) -> Topics:
    """The topics that there should be, beside those that there are, and how far each group is behind.

    `known` is (cluster id, topic id) by topic as Postgres remembers it. Raises `BrokerUnavailableError`.
    """
    jobs = table.topics_of_queues(queues)
    wanted = {topic.name: topic for topic in (*table.ALL, *jobs)}
    async with Admin(bootstrap, client_id="barnabas-doctor") as admin:
        there = await admin.call(_partitions)
        found = [name for name in wanted if name in there]
        cluster_id, topic_ids = await admin.topic_ids(found)
        return Topics(
            count=len(found),
            missing=tuple(name for name in wanted if name not in there),
            narrow=tuple(_narrow([wanted[name] for name in found], there)),
            changed=tuple(
                sorted(
                    name
                    for name, topic_id in topic_ids.items()
                    if known.get(name, (cluster_id, topic_id)) != (cluster_id, topic_id)
                )
            ),
            lags=tuple([await _lag(admin, group, names) for group, names in _groups(jobs).items()]),
        )


def _groups(jobs: Sequence[Topic]) -> dict[str, list[str]]:
    """Who reads what. Delay tiers have lag by design."""
    return {
        "barnabas.worker": [topic.name for topic in jobs],
        "barnabas.notifier": [table.RESULTS.name, table.DELIVERIES_RETRY.name],
        "barnabas.ingest": [table.INTAKE.name],
        "barnabas.retry-scheduler": [table.RETRIES.name],
    }


async def _lag(admin: Admin, group: str, names: Sequence[str]) -> Lag:
    lags = await lag(admin, group, names)
    oldest = await oldest_unread_timestamp_ms(admin, lags)
    first_ms = min((at_ms for at_ms in oldest.values() if at_ms is not None), default=None)
    age = None if first_ms is None else max(0.0, time.time() - first_ms / 1_000)
    return Lag(group=group, records=sum(each.records for each in lags), oldest_seconds=age)


def _partitions(client: Any) -> dict[str, int]:
    listed = client.list_topics(timeout=_LIMIT_SECONDS).topics
    return {name: len(topic.partitions) for name, topic in listed.items() if topic.error is None}


def _narrow(topics: Sequence[Topic], there: Mapping[str, int]) -> list[str]:
    return [
        f"{topic.name} has {there[topic.name]} of {topic.partitions} partitions"
        for topic in topics
        if there[topic.name] < topic.partitions
    ]
