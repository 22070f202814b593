"""The sums from which the number of workers is decided, on a real broker."""

from contextlib import suppress

from barnabas.errors import BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.kafka.consumer import Consumer
from barnabas.kafka.flow import Flow, flow
from barnabas.kafka.partitions import TopicPartition
from barnabas.kafka.producer import Producer
from tests.integration.kafka.conftest import MakeTopic, consume, numbered
from tests.support.eventually import eventually


async def test_it_tells_what_a_group_has_to_read_what_it_has_read_and_what_came_out(
    bootstrap: str, admin: Admin, producer: Producer, make_topic: MakeTopic
) -> None:
    first, second, out = await make_topic(1), await make_topic(1), await make_topic(2)
    group = f"g.{first}"
    await producer.send(first, numbered(range(20)))
    await producer.send(second, numbered(range(7)))

    async def never_read() -> Flow | None:
        # A broker that has just started doesn't know its groups yet.
        with suppress(BrokerUnavailableError):
            return await flow(admin, group, into=[first, second, "no-such-topic"], out_of=out)
        return None

    unread = await eventually(never_read)
    async with Consumer(bootstrap, group=group, topics=[first]) as consumer:
        await consume(consumer, 20)
        consumer.commit({TopicPartition(first, 0): 15})
    await producer.send(out, numbered(range(4)))

    assert unread == Flow(waiting=27, read=0, came_out=0)
    assert await flow(admin, group, into=[first, second], out_of=out) == Flow(waiting=12, read=15, came_out=4)


async def test_topics_that_do_not_exist_yet_have_no_flow(admin: Admin) -> None:
    assert await flow(admin, "g.nobody", into=["no-such-topic"], out_of="nor-this") == Flow(0, 0, 0)
