"""What a type checker sees of the clients; mypy judges this file, running it only shows that it is true."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from barnabas.client.api import AsyncClient, Client
from barnabas.client.models import Job, Submitted, Verdict


def _blocking(client: Client) -> None:
    assert_type(client.submit("scoring", {"n": 1}, idempotency_key="k"), Submitted)
    assert_type(client.wait("id", timeout=3), Job)
    assert_type(client.submit_batch([]), list[Verdict])
    assert_type(client.list(status="failed"), Iterator[Job])
    client.submit(1)  # type: ignore[arg-type] # the type of a job is text
    client.submit("scoring", priorty=1)  # type: ignore[call-arg] # a misspelt argument


async def _awaiting(client: AsyncClient) -> None:
    assert_type(await client.submit("scoring", {"n": 1}), Submitted)
    assert_type(await client.get("id", wait=3), Job)
    assert_type(client.list(), AsyncIterator[Job])


def test_the_methods_are_bound_to_their_client() -> None:
    assert callable(Client.submit.__get__(Client("http://x", "k"), Client))
