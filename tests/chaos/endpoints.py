"""The tenants' endpoints in a chaos run: they verify and write down every call, and have hostile moments.

In such a moment most calls are answered with an error, cut off or answered late; it is shorter than the schedule of
retries, so that every delivery can succeed in the end. When moments come follows from the seed.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from standardwebhooks.webhooks import WebhookVerificationError

from tests.chaos.ledger import Ledger, Received, now
from tests.support.receiver import Exchange, Receiver, open_receiver
from tests.support.receiver import Received as Call

RETRY_SCHEDULE_SECONDS = (0.5, 1, 2, 4, 8, 10, 10, 10, 10)

_CALM_SECONDS = (8.0, 25.0)
_HOSTILE_SECONDS = (1.0, 5.0)
# Of a hostile moment's calls, how many go wrong, and of all others.
_WRONG = 0.6
_WRONG_IN_CALM = 0.002


class _Data(msgspec.Struct):
    id: str


class _Body(msgspec.Struct):
    type: str
    data: _Data


_decoder = msgspec.json.Decoder(_Body)


@dataclass(slots=True)
class ChaosEndpoints:
    """All endpoints of a run, each a path of one receiver."""

    receiver: Receiver
    ledger: Ledger
    seed: int
    failed: deque[tuple[str, str]] = field(default_factory=deque)
    """Tenant and job of each event that told of a failed job, for whoever wants to redrive it."""
    _known: set[int] = field(default_factory=set)
    """Connections that have had a call."""

    def url(self, path: str) -> str:
        """Where the endpoint of that path is."""
        return self.receiver.url(path)

    def listen(self, path: str, *, tenant: str, endpoint: str, secret: str) -> None:
        """From now on calls to this path are verified with the secret and written down as this endpoint's."""
        moments = _Moments(random.Random(f"endpoint {self.seed} {path}"))

        async def behave(exchange: Exchange) -> None:
            call = exchange.received
            # All endpoints are of one host, so the notifier calls them over the same connections.
            is_fresh = call.connection not in self._known
            self._known.add(call.connection)
            event = _read(call, secret, tenant=tenant, endpoint=endpoint)
            if event.event_type == "job.failed":
                self.failed.append((tenant, event.job))
            try:
                answered = await _answer(exchange, moments, is_fresh=is_fresh)
            except OSError:
                answered = 0  # who asked has gone
            self.ledger.write(msgspec.structs.replace(event, at=now(), answered=answered))

        self.receiver.script(path, behave)


@asynccontextmanager
async def open_endpoints(ledger: Ledger, seed: int) -> AsyncIterator[ChaosEndpoints]:
    """A receiver for the endpoints of a run."""
    async with open_receiver() as receiver:
        # A run of 100,000 jobs would keep as many bodies.
        receiver.keep_requests = False
        yield ChaosEndpoints(receiver, ledger, seed)


class _Moments:
    """When one endpoint is hostile."""

    def __init__(self, choice: random.Random) -> None:
        self._choice = choice
        self._is_hostile = False
        self._until = now() + choice.uniform(*_CALM_SECONDS)

    def is_wrong(self) -> bool:
        """Whether the call that is there now goes wrong."""
        while now() >= self._until:
            self._is_hostile = not self._is_hostile
            self._until += self._choice.uniform(*(_HOSTILE_SECONDS if self._is_hostile else _CALM_SECONDS))
        return self._choice.random() < (_WRONG if self._is_hostile else _WRONG_IN_CALM)

    def how(self) -> str:
        """In which way it goes wrong."""
        return self._choice.choice(["error", "busy", "reset", "slow", "close"])


async def _answer(exchange: Exchange, moments: _Moments, *, is_fresh: bool) -> int:
    """Answer, or not; returns the status, 0 without one."""
    status = 204
    if moments.is_wrong():
        match moments.how():
            case "reset" if is_fresh:
                # Only on a fresh one: after a kept one that broke the notifier calls again under the same claim.
                exchange.keep = False
                exchange.writer.transport.abort()
                return 0
            case "error" | "reset":
                status = 500
            case "busy":
                status = 503
            case "slow":
                await asyncio.sleep(1.5)
            case _:
                exchange.keep = False
    retry_after = "Retry-After: 1\r\n" if status == 503 else ""
    await exchange.send(f"HTTP/1.1 {status} Whatever\r\n{retry_after}Content-Length: 0\r\n\r\n".encode())
    return status


def _read(call: Call, secret: str, *, tenant: str, endpoint: str) -> Received:
    """What came in; verified now, because its timestamp does not stay fresh."""
    try:
        call.verified(secret)
        signed = True
    except WebhookVerificationError:
        signed = False
    body = _decoder.decode(call.body)
    return Received(call.at, tenant, endpoint, call.webhook_id, body.data.id, body.type, signed, 0)
