import secrets

import pytest

from barnabas.contract import topics as table
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin, ensure_topics, topic_ids
from tests.integration.kafka.conftest import MakeTopic, topic
from tests.support.eventually import eventually


async def test_making_the_products_topics_twice_changes_nothing_the_second_time(bootstrap: str) -> None:
    await ensure_topics(bootstrap)
    again = await ensure_topics(bootstrap)
    _, ids = await topic_ids(bootstrap)

    assert again == []
    assert set(ids) == set(table.BY_NAME)
    assert len(set(ids.values())) == len(ids)


async def test_a_topic_with_too_few_partitions_or_another_retention_is_put_right(
    admin: Admin, make_topic: MakeTopic
) -> None:
    name = await make_topic(2)
    wanted = table.Topic(name, "tenant", 7_200_000, partitions=6, delay_seconds=1.0)
    changes = await admin.ensure_topics(topics=[wanted])

    assert changes == [
        f"partitions of {name}: 2 -> 6",
        f"retention.ms of {name}: 3600000 -> 7200000",
        f"message.timestamp.type of {name}: CreateTime -> LogAppendTime",
    ]
    # A change is answered a moment before the broker tells of it.
    await eventually(lambda: admin.ensure_topics(topics=[wanted]), until=lambda changes: changes == [])


async def test_partitions_are_never_taken_away(admin: Admin, make_topic: MakeTopic) -> None:
    name = await make_topic(6)

    assert await admin.ensure_topics(topics=[topic(name, 2)]) == []


async def test_a_topic_made_again_has_another_id_in_the_same_cluster(admin: Admin, make_topic: MakeTopic) -> None:
    name = await make_topic(1)
    cluster, before = await admin.topic_ids([name])
    await admin.delete_topics([name])
    _, gone = await admin.topic_ids([name])
    await admin.ensure_topics(topics=[topic(name, 1)])
    same_cluster, after = await admin.topic_ids([name])

    assert gone == {}
    assert before[name] != after[name]
    assert cluster == same_cluster


async def test_deleting_what_does_not_exist_is_no_mistake(admin: Admin) -> None:
    await admin.delete_topics([f"test.{secrets.token_hex(6)}"])


async def test_a_broker_that_is_away_is_a_transient_error() -> None:
    async with Admin("127.0.0.1:9") as admin:
        with pytest.raises(BrokerUnavailableError):
            await admin.call(lambda client: client.list_topics(timeout=0.5))
