"""The load of a crash run: a little of everything, all the while, so that every point is on somebody's way.

Each submission is in the ledger before it is sent, and its answer after it. What has an idempotency key is asked again
until it is answered; what has none is sent once, since asking again would make two jobs.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from barnabas.contract import topics
from barnabas.errors import BrokerUnavailableError, OverloadedError
from barnabas.kafka.producer import Producer
from tests.chaos.crash.tenants import CrashTenant
from tests.chaos.ledger import Accepted, Accepting, Cancelled, Ledger, Refused, Unknown, now

IDLE_QUEUE = "nobody"
"""A queue that no worker serves: its jobs are ready for ever, so the reconciler finds them when their topic is new."""

_TICK_SECONDS = 0.25
_BATCH = 4
_RETRY_SECONDS = 0.2
_TRIES_MAX = 900
_ANSWER_SECONDS = 15.0
# Answers that ask for patience; any other refusal of what is sent here is wrong.
_LATER = (408, 429, 503)
_RETRIES = {"base_seconds": 0.3, "factor": 2, "cap_seconds": 2, "jitter": "full"}


@dataclass(frozen=True, slots=True)
class Wish:
    """One job to be submitted; its key is in its payload, too, where it has no idempotency key."""

    tenant: CrashTenant
    key: str
    payload: dict[str, object]
    expected: str
    delay_seconds: float = 0.0
    queue: str | None = None

    def document(self, *, with_key: bool) -> dict[str, object]:
        """As the API takes it."""
        fields: dict[str, object] = {"type": "effect", "payload": self.payload, "retry": _RETRIES}
        if self.delay_seconds:
            fields["delay_seconds"] = self.delay_seconds
        if self.queue is not None:
            fields["queue"] = self.queue
        return fields | ({"idempotency_key": self.key} if with_key else {})

    def accepting(self, via: str) -> Accepting:
        """For the ledger, a moment before it is sent."""
        at = now()
        return Accepting(
            at,
            self.key,
            self.tenant.id,
            via=via,
            body_hash=hashlib.sha256(json.dumps(self.payload, sort_keys=True).encode()).hexdigest()[:16],
            jobs_type="effect",
            expected=self.expected,
            due_at=at + self.delay_seconds if self.delay_seconds else None,
        )


@dataclass(slots=True)
class Load:
    """Submits until told to stop, and then until everything that was begun has its answer."""

    api_url: str
    kafka: str
    tenants: Sequence[CrashTenant]
    ledger: Ledger
    choice: random.Random
    number: int = 0
    keyed: int = 0
    """Submissions with an idempotency key: each of them becomes a job."""
    idle: list[tuple[CrashTenant, str]] = field(default_factory=list)
    """Jobs in the idle queue."""
    wrong: list[str] = field(default_factory=list)
    """Answers that may never be given."""

    async def run(self, stop: asyncio.Event) -> None:
        """One tick after the other: each way in gets something. A way that waits for an answer holds up no other."""
        async with self._http() as http, Producer(self.kafka) as producer, asyncio.TaskGroup() as group:
            for way in (self._keyed, self._plain, self._batch):
                group.create_task(self._repeat(way, http, stop))
            group.create_task(self._repeat(self._by_kafka, producer, stop))

    async def flood(self, count: int) -> None:
        """Far more jobs of one tenant than the look-ahead has room for, in batches."""
        tenant = self.tenants[-1]
        wishes = [self._wish(tenant, quick=True) for _ in range(count)]
        async with self._http() as http:
            for begin in range(0, count, 500):
                await self._post_batch(http, tenant, wishes[begin : begin + 500])

    async def fill_idle_queue(self, count: int) -> None:
        """Jobs that stay ready."""
        tenant = self.tenants[0]
        async with self._http() as http:
            for _ in range(count):
                wish = self._wish(tenant, quick=True, queue=IDLE_QUEUE)
                self.idle.append((tenant, await self._post(http, wish, "http")))

    async def cancel_idle(self) -> None:
        """Cancel the jobs of the idle queue, which nobody will ever run."""
        async with self._http() as http:
            while self.idle:
                tenant, job = self.idle[-1]
                await self._answered(http, f"/v1/jobs/{job}/cancel", tenant, None, {})
                self.ledger.write(Cancelled(now(), tenant.id, job))
                self.idle.pop()

    def _http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.api_url, timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS))

    async def _repeat(self, way: Any, through: Any, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await way(through)
            await asyncio.sleep(_TICK_SECONDS)

    def _wish(
        self,
        tenant: CrashTenant | None = None,
        *,
        quick: bool = False,
        queue: str | None = None,
        with_key: bool = True,
    ) -> Wish:
        self.number += 1
        self.keyed += with_key
        key = f"k{self.number}"
        tenant = tenant or self.choice.choice(self.tenants)
        payload: dict[str, object] = {"key": key}
        if queue is not None:
            return Wish(tenant, key, payload, "cancelled", queue=queue)
        kind = 0.0 if quick else self.choice.random()
        if kind < 0.5:
            return Wish(tenant, key, payload, "succeeded")
        if kind < 0.65:
            # Something runs whenever a worker is told to stop.
            return Wish(tenant, key, payload | {"seconds": self.choice.uniform(0.3, 1.2)}, "succeeded")
        if kind < 0.8:
            return Wish(tenant, key, payload | {"fails": 1}, "succeeded")
        if kind < 0.85:
            return Wish(tenant, key, payload | {"fails": 99, "error": "permanent"}, "failed")
        return Wish(tenant, key, payload, "succeeded", delay_seconds=self.choice.uniform(0.3, 2.0))

    async def _keyed(self, http: aiohttp.ClientSession) -> None:
        await self._post(http, self._wish(), "http")

    async def _plain(self, http: aiohttp.ClientSession) -> None:
        """Without a key, and therefore once."""
        wish = self._wish(with_key=False)
        self.ledger.write(wish.accepting("plain"))
        headers = {"authorization": f"Bearer {wish.tenant.api_key}"}
        try:
            async with http.post("/v1/jobs", json=wish.document(with_key=False), headers=headers) as response:
                answer = await response.json(content_type=None)
                self._note(wish, response.status, answer)
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
            self.ledger.write(Unknown(now(), wish.key, wish.tenant.id))

    async def _post(self, http: aiohttp.ClientSession, wish: Wish, via: str) -> str:
        answer = await self._answered(
            http, "/v1/jobs", wish.tenant, wish, wish.document(with_key=False), {"idempotency-key": wish.key}, via
        )
        return str(answer["id"])

    async def _answered(
        self,
        http: aiohttp.ClientSession,
        path: str,
        tenant: CrashTenant,
        wish: Wish | None,
        body: object,
        headers: dict[str, str] | None = None,
        via: str = "",
    ) -> dict[str, Any]:
        """The first answer that is neither a lost connection nor a 503."""
        headers = {"authorization": f"Bearer {tenant.api_key}"} | (headers or {})
        for _ in range(_TRIES_MAX):
            if wish is not None:
                self.ledger.write(wish.accepting(via))
            try:
                async with http.post(path, json=body, headers=headers) as response:
                    answer: dict[str, Any] = await response.json(content_type=None)
                    if wish is not None:
                        self._note(wish, response.status, answer)
                    if response.status in (200, 202):
                        return answer
                    if response.status not in _LATER:
                        self.wrong.append(f"{path}: {response.status} {answer}")
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                if wish is not None:
                    self.ledger.write(Unknown(now(), wish.key, wish.tenant.id))
            await asyncio.sleep(_RETRY_SECONDS)
        raise AssertionError(f"{path} was not answered in {_TRIES_MAX} tries")

    def _note(self, wish: Wish, status: int, answer: dict[str, Any]) -> None:
        if status in (200, 202):
            self.ledger.write(Accepted(now(), wish.key, wish.tenant.id, str(answer["id"])))
        else:
            self.ledger.write(Refused(now(), wish.key, wish.tenant.id, status))
            if status not in _LATER:
                self.wrong.append(f"{wish.key}: {status} {answer}")

    async def _batch(self, http: aiohttp.ClientSession) -> None:
        tenant = self.choice.choice(self.tenants)
        await self._post_batch(http, tenant, [self._wish(tenant) for _ in range(_BATCH)])

    async def _post_batch(self, http: aiohttp.ClientSession, tenant: CrashTenant, wishes: Sequence[Wish]) -> None:
        todo = list(wishes)
        for _ in range(_TRIES_MAX):
            self.ledger.write(*(wish.accepting("batch") for wish in todo))
            documents = [wish.document(with_key=True) for wish in todo]
            answer = await self._answered(http, "/v1/jobs/batch", tenant, None, documents)
            again = []
            for wish, verdict in zip(todo, answer["items"], strict=True):
                if verdict.get("id"):
                    self._note(wish, 202, verdict)
                elif verdict.get("problem", {}).get("retryable"):
                    again.append(wish)
                else:
                    self._note(wish, int(verdict.get("problem", {}).get("status", 400)), verdict)
            if not again:
                return
            todo = again
            await asyncio.sleep(_RETRY_SECONDS)
        raise AssertionError(f"{len(todo)} jobs of a batch were not accepted in {_TRIES_MAX} tries")

    async def _by_kafka(self, producer: Producer) -> None:
        wish = self._wish()
        headers = [("authorization", wish.tenant.api_key.encode()), ("idempotency-key", wish.key.encode())]
        record = (wish.tenant.id.encode(), json.dumps(wish.document(with_key=False)).encode(), headers)
        for _ in range(_TRIES_MAX):
            self.ledger.write(wish.accepting("kafka"))
            try:
                await producer.send(topics.INTAKE.name, [record])
            except (BrokerUnavailableError, OverloadedError):
                self.ledger.write(Unknown(now(), wish.key, wish.tenant.id))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                # Which job it will be is known to nobody yet.
                self.ledger.write(Accepted(now(), wish.key, wish.tenant.id, ""))
                return
        raise AssertionError("Kafka took no records")
