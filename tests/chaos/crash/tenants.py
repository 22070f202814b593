"""The tenants of a crash run, and what their endpoints do: take everything, fail at times, fail always, be slow."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from standardwebhooks import Webhook

from tests.chaos.crash.system import System
from tests.chaos.ledger import Ledger, Received, now
from tests.support.receiver import Behaviour, Exchange, Receiver, answer

_KINDS = ("sound", "flaky", "broken", "slow", "choosy")
# Longer than the load needs to fill the lane of the slow one.
_SLOW_SECONDS = 0.7
_FLAKY_SHARE = 0.3
# Two tries and a dead letter for who always fails; enough of them for who fails at times.
_SCHEDULES: dict[str, list[float]] = {"broken": [0.5], "flaky": [0.3, 0.5, 1, 1, 1, 2, 2, 2, 2, 2]}
_PATIENT = [0.5, 1, 1, 2, 2, 2]


@dataclass(frozen=True, slots=True)
class CrashTenant:
    """A tenant of the run."""

    id: str
    api_key: str
    name: str


def _at_once() -> float:
    return 0.0


async def open_tenants(
    system: System, receiver: Receiver, ledger: Ledger, choice: random.Random, *, resting: asyncio.Event
) -> Sequence[CrashTenant]:
    """One tenant of each kind. The last, the choosy one, only wants to hear of failures.

    While `resting` is set nobody is slow: what waits in memory then has been there long enough.
    """

    def slow() -> float:
        return 0.0 if resting.is_set() else _SLOW_SECONDS

    tenants = []
    async with system.client() as admin:
        for name in _KINDS:
            made = await admin.create_tenant(name)
            key = (await admin.create_key(made.id, "crash")).key
            assert key is not None
            tenant = CrashTenant(str(made.id), key, name)
            async with system.client(key) as client:
                endpoint = await client.create_endpoint(
                    receiver.url(f"/{name}"),
                    event_types=["job.failed"] if name == "choosy" else None,
                    retry_schedule_seconds=_SCHEDULES.get(name, _PATIENT),
                )
            assert endpoint.secret is not None
            status = _status_of(name, random.Random(choice.random()))
            behave = noted(
                ledger,
                tenant.id,
                str(endpoint.id),
                endpoint.secret,
                status,
                slow if name == "slow" else _at_once,
            )
            receiver.script(f"/{name}", behave)
            tenants.append(tenant)
    return tenants


class _status_of:  # noqa: N801 - reads as the value it gives
    """What an endpoint of this kind answers next."""

    def __init__(self, name: str, choice: random.Random) -> None:
        self._name = name
        self._choice = choice

    def __call__(self) -> int:
        if self._name == "broken" or (self._name == "flaky" and self._choice.random() < _FLAKY_SHARE):
            return 500
        return 204


def noted(
    ledger: Ledger,
    tenant: str,
    endpoint: str,
    secret: str,
    status_of: Callable[[], int],
    delay_of: Callable[[], float] = _at_once,
) -> Behaviour:
    """An answer that is in the ledger with the call it was given to."""
    webhook = Webhook(secret)

    async def behave(exchange: Exchange) -> None:
        status, is_signed, body = status_of(), True, {}
        try:
            body = webhook.verify(exchange.received.body, dict(exchange.received.headers))
        except Exception:  # noqa: BLE001 - whatever is wrong with it is what the checker reports
            is_signed = False
        answered = 0
        try:
            await answer(status, delay_seconds=delay_of())(exchange)
            answered = status
        finally:
            ledger.write(
                Received(
                    now(),
                    tenant,
                    endpoint,
                    exchange.received.webhook_id,
                    str(body.get("data", {}).get("id", "")),
                    str(body.get("type", "")),
                    is_signed,
                    answered,
                )
            )

    return behave
