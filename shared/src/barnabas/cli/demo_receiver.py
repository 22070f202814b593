"""What the demo has on the other side: an endpoint that verifies webhooks, and a service that is down until repaired.

Real HTTP on loopback, on a free port. The endpoint answers 401 to what isn't signed with its secret, as a tenant's
own should, and remembers the first webhook of each job and event.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from barnabas.domain.signing import ID_HEADER, BadSignatureError, verify

_WEBHOOK_PATH = "/webhooks"
_STOCK_PATH = "/stock"
# A result has a megabyte at most, and an event little more than it.
_BODY_BYTES_MAX = 2 << 20
_CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook whose signature was good."""

    id: str
    at: float
    """Monotonic seconds."""
    event: dict[str, Any]


@dataclass(slots=True)
class Receiver:
    """A small web server. Webhooks are refused until it has the endpoint's `secret`."""

    url: str = ""
    secret: str = field(default="", repr=False)
    is_repaired: bool = False
    """Whether the service behind `stock_url` works."""
    refused: int = 0
    """Webhooks without a good signature."""
    _verified: dict[tuple[str, str], Webhook] = field(default_factory=dict)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def webhook_url(self) -> str:
        """Where webhooks go."""
        return self.url + _WEBHOOK_PATH

    @property
    def stock_url(self) -> str:
        """The service that the demo's handler calls."""
        return self.url + _STOCK_PATH

    async def webhook(self, job_id: str, event_type: str) -> Webhook:
        """The webhook about that event of that job, once it is there; the caller limits the wait."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: (job_id, event_type) in self._verified)
            return self._verified[job_id, event_type]

    async def take_webhook(self, request: web.Request) -> web.Response:
        """204 to what is signed, 401 to what isn't."""
        body = await request.read()
        try:
            if not self.secret:
                raise BadSignatureError("there is no secret yet")
            verify([self.secret], request.headers, body, now=time.time())
        except BadSignatureError:
            self.refused += 1
            return web.Response(status=401)
        event = json.loads(body)
        async with self._arrived:
            # Deliveries are at least once: the first one counts.
            key = (str(event["data"]["id"]), str(event["type"]))
            self._verified.setdefault(key, Webhook(request.headers[ID_HEADER], time.monotonic(), event))
            self._arrived.notify_all()
        return web.Response(status=204)

    async def sell(self, _: web.Request) -> web.Response:
        """503 until somebody repairs it."""
        if not self.is_repaired:
            return web.Response(status=503, text="the stock service is down")
        return web.json_response({"in_stock": True})


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """A receiver that listens until the block ends."""
    receiver = Receiver()
    app = web.Application(client_max_size=_BODY_BYTES_MAX)
    app.router.add_post(_WEBHOOK_PATH, receiver.take_webhook)
    app.router.add_get(_STOCK_PATH, receiver.sell)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        receiver.url = f"http://127.0.0.1:{port}"
        yield receiver
    finally:
        await runner.cleanup()
