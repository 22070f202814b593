"""Queues by the client, blocking and async."""

import msgspec

from barnabas.client import models
from barnabas.client.api import AsyncClient, Client
from barnabas.contract import queues as contract
from tests.unit.client.server import Reply, scripted_server

DEFAULT = {"name": "default", "shares": {"critical": 25, "high": 25, "medium": 30, "low": 20}}


def test_a_queue_is_set_and_all_are_listed() -> None:
    with scripted_server() as server, Client(server.url, "an-admin-s-key") as client:
        server.will(Reply(200, DEFAULT), Reply(200, {"items": [DEFAULT]}))

        queue = client.set_queue("a/b", shares={"low": 7})
        listed = client.queues()

    assert listed == [queue]
    assert queue.shares["medium"] == 30
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("PUT", "/v1/admin/queues/a%2Fb"),
        ("GET", "/v1/admin/queues"),
    ]
    assert server.asked[0].json == {"shares": {"low": 7}}


async def test_the_async_client_has_the_same() -> None:
    with scripted_server() as server:
        server.will(Reply(200, DEFAULT), Reply(200, {"items": [DEFAULT]}))
        async with AsyncClient(server.url, "an-admin-s-key") as client:
            queue = await client.set_queue("default")

            assert await client.queues() == [queue]


def test_the_clients_model_has_the_fields_that_the_api_sends() -> None:
    sent = contract.QueueView("gpu", contract.shares_of((1, 2, 3, 4)))

    read = msgspec.json.decode(msgspec.json.encode(sent), type=models.Queue)

    assert read == models.Queue(name="gpu", shares={"low": 1, "medium": 2, "high": 3, "critical": 4})
    assert sent.shares.by_priority() == (1, 2, 3, 4)
