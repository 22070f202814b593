"""One way to call both clients, and the answers that an API gives them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

from barnabas.client.api import AsyncClient, Client
from barnabas.client.flows import Retries

JOB_ID = UUID("0190f3c2-0000-7000-8000-000000000001")
KEY = "bnb_test_key"
QUICK = Retries(base_seconds=0.001, cap_seconds=0.002)


class Caller:
    """Calls either client by a method's name, so that each test is about both."""

    def __init__(self, kind: str, url: str, retries: Retries = QUICK) -> None:
        self._client = (
            Client(url, KEY, timeout=60, retries=retries)
            if kind == "blocking"
            else AsyncClient(url, KEY, timeout=60, retries=retries)
        )

    async def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        method = getattr(self._client, name)
        if isinstance(self._client, AsyncClient):
            answer = method(*args, **kwargs)
            return [each async for each in answer] if isinstance(answer, AsyncIterator) else await answer

        def call() -> Any:
            answer = method(*args, **kwargs)
            return list(answer) if isinstance(answer, Iterator) else answer

        return await asyncio.to_thread(call)

    async def close(self) -> None:
        if isinstance(self._client, AsyncClient):
            await self._client.aclose()
        else:
            self._client.close()


def job(status: str = "queued", **more: Any) -> dict[str, Any]:
    return {"id": str(JOB_ID), "status": status} | more


def problem(code: str, status: int, *, retryable: bool = False) -> dict[str, Any]:
    return {"status": status, "code": code, "type": f"urn:{code}", "title": code, "retryable": retryable}
