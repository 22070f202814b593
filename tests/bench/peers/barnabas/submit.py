"""The harness's client: plain HTTP, or the product's own client where `BENCH_CLIENT` is `library`."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from peerbench import client_async  # type: ignore[import-not-found]  # the harness has it on the path

from barnabas.client.api import AsyncClient
from tests.bench.peers.barnabas.peer_state import told

_IN_FLIGHT = 20

Payload = dict[str, Any]
Calls = tuple[Callable[[Payload], Awaitable[None]], Callable[[list[Payload]], Awaitable[None]]]


@asynccontextmanager
async def _library(url: str, key: str) -> AsyncIterator[Calls]:
    async with AsyncClient(url, key) as client:

        async def single(payload: Payload) -> None:
            await client.submit("job", payload)

        async def bulk(payloads: list[Payload]) -> None:
            await client.submit_batch([{"type": "job", "payload": payload} for payload in payloads])

        yield single, bulk


@asynccontextmanager
async def _http(url: str, key: str) -> AsyncIterator[Calls]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def post(path: str, body: Any, expected: int) -> None:
            async with session.post(f"{url}{path}", data=msgspec.json.encode(body)) as answer:
                text = await answer.read()
                if answer.status != expected or b'"rejected"' in text:
                    raise RuntimeError(f"{answer.status}: {text[:300]!r}")

        async def single(payload: Payload) -> None:
            await post("/v1/jobs", {"type": "job", "payload": payload}, 202)

        async def bulk(payloads: list[Payload]) -> None:
            await post("/v1/jobs/batch", [{"type": "job", "payload": payload} for payload in payloads], 200)

        yield single, bulk


def main() -> None:
    """One operation of the harness: single, bulk, paced or live."""
    facts = told()
    assert facts is not None, "set_up.py has not been run"
    way = _library if os.environ.get("BENCH_CLIENT") == "library" else _http
    client_async(lambda: way(facts["api_url"], facts["api_key"]), conc_=_IN_FLIGHT)


if __name__ == "__main__":
    main()
