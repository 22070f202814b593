"""A broker of this module's own, because its data is thrown away under the clients."""

import shutil
from pathlib import Path

import pytest

from barnabas.kafka.admin import Admin
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.producer import Producer
from barnabas_local.kafka import Kafka
from tests.integration.kafka.conftest import consume, consume_until, numbered, numbers, send_at_last, topic


# Three starts of a broker and two of its ends.
@pytest.mark.timeout(900)
async def test_clients_survive_a_restart_and_the_loss_of_all_of_kafkas_data(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path / "kafka", tmp_path / "kafka.log", heap_mb_max=384)
    await kafka.start()
    try:
        async with Admin(kafka.bootstrap) as admin:
            old_cluster, _ = await admin.topic_ids([])
            await admin.ensure_topics(topics=[topic("work", 2)])
            async with (
                Producer(kafka.bootstrap, delivery_timeout_seconds=60) as producer,
                Consumer(kafka.bootstrap, group="g", topics=["work"]) as consumer,
            ):
                await producer.send("work", numbered(range(100)))
                await consume(consumer, 100)

                await kafka.stop()
                await kafka.start()
                await producer.send("work", numbered(range(100, 200)))
                # Nothing was committed: a member that is taken for dead meanwhile reads the first hundred again.
                await consume_until(consumer, lambda records: set(numbers(records)) >= set(range(100, 200)))

                await kafka.stop(at_once=True)
                shutil.rmtree(kafka.directory)
                await kafka.start()
                new_cluster, _ = await admin.topic_ids([])
                await admin.ensure_topics(topics=[topic("work", 2)])
                await send_at_last(producer, "work", numbered(range(200, 210)))
                await consume_until(consumer, lambda records: set(numbers(records)) >= set(range(200, 210)))

                assert old_cluster != new_cluster
    finally:
        await kafka.stop(at_once=True)


@pytest.mark.timeout(600)
async def test_records_of_a_producer_from_before_a_wipe_are_not_taken_for_those_of_one_from_after_it(
    tmp_path: Path,
) -> None:
    kafka = Kafka(tmp_path / "kafka", tmp_path / "kafka.log", heap_mb_max=384)
    await kafka.start()
    try:
        async with Admin(kafka.bootstrap) as admin:
            await admin.ensure_topics(topics=[topic("work", 1), topic("other", 1)])
            # The first of its cluster, as the next one will be of its own.
            async with Producer(kafka.bootstrap, delivery_timeout_seconds=60) as before:
                await before.send("work", numbered([0]))
                await kafka.stop(at_once=True)
                shutil.rmtree(kafka.directory)
                await kafka.start()
                await admin.ensure_topics(topics=[topic("work", 1), topic("other", 1)])
                async with Producer(kafka.bootstrap, delivery_timeout_seconds=60) as after:
                    await send_at_last(after, "other", numbered([1]))
                    await send_at_last(before, "other", numbered([2]))
                    await send_at_last(after, "other", numbered([3]))
                    await send_at_last(before, "other", numbered([4]))
            async with Consumer(kafka.bootstrap, group="g", topics=["other"]) as consumer:
                records = await consume_until(consumer, lambda records: 4 in numbers(records))
    finally:
        await kafka.stop(at_once=True)

    assert set(numbers(records)) == {1, 2, 3, 4}
