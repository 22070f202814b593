"""The load of a chaos run: every wish is asked for until it has an answer; each question and answer is written down.

A lost connection and a time-out are unknown: the wish may or may not have happened, and is asked for again under the
same key. So is a refusal that may pass: 429, 503.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from barnabas.contract import topics
from barnabas.errors import BrokerUnavailableError, OverloadedError
from barnabas.kafka.producer import Producer
from tests.chaos.ledger import Accepted, Accepting, Ledger, Refused, Unknown, now
from tests.chaos.wishes import Via, Wish

_BATCH = 100
_ANSWER_SECONDS = 12.0
_PAUSE_SECONDS = 0.2
# Together they outlast every fault by far; a wish that has no answer by then never gets one.
_PATIENCE_SECONDS = 300.0
_IN_FLIGHT = 32

_OK = frozenset({200, 202})
_LATER = frozenset({429, 503})
"""What the door may say to a good request when it can't."""
_TOO_SLOW = 408
"""What it says when the way to it was so slow that the request didn't arrive in time."""


@dataclass(slots=True)
class Load:
    """A load in progress. Made by `open_load`."""

    url: str
    http: aiohttp.ClientSession
    producer: Producer
    ledger: Ledger
    statuses: Counter[int] = field(default_factory=Counter)
    """How many answers of each status; 0 counts questions without one."""
    wrong: list[str] = field(default_factory=list)
    """Answers that the door may never give, whatever is broken behind it."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Named jobs, by key."""
    acknowledged: dict[str, Wish] = field(default_factory=dict)
    """What Kafka took, by key."""
    to_cancel: deque[tuple[Wish, str]] = field(default_factory=deque)
    """Accepted jobs whose cancel is to be asked for."""

    async def submit(self, wanted: Sequence[Wish], *, pace: float) -> None:
        """Ask for all of them, at about `pace` jobs a second; returns when all have their answers."""
        async with asyncio.TaskGroup() as group:
            for via in Via:
                mine = [wish for wish in wanted if wish.via is via]
                if mine:
                    group.create_task(self._submit(via, mine, pace * len(mine) / len(wanted)))

    async def send_again(self, stored: set[str]) -> int:
        """Kafka has lost what it had taken: send again what isn't stored (by key). Returns how many were sent."""
        lost = [wish for key, wish in self.acknowledged.items() if key not in stored]
        for batch in _batches(lost):
            await self._produce(batch)
        return len(lost)

    async def _submit(self, via: Via, wanted: Sequence[Wish], pace: float) -> None:
        """Start each portion at its time; what takes long delays nobody else until too much is in flight."""
        room = asyncio.Semaphore(_IN_FLIGHT)
        portions = [[wish] for wish in wanted] if via is Via.SINGLE else _batches(wanted)
        begin, given = now(), 0

        async def one(portion: list[Wish]) -> None:
            try:
                if via is Via.KAFKA:
                    await self._produce(portion)
                else:
                    await self._post(via, portion)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            for portion in portions:
                await room.acquire()
                group.create_task(one(portion))
                given += len(portion)
                await asyncio.sleep(max(0.0, begin + given / pace - now()))

    async def _post(self, via: Via, portion: list[Wish]) -> None:
        deadline, todo = now() + _PATIENCE_SECONDS, portion
        while todo:
            self._asking(todo)
            if via is Via.SINGLE:
                todo = await self._ask_one(todo[0])
            else:
                todo = await self._ask_many(via, todo)
            if todo:
                if now() > deadline:
                    self.wrong.append(f"{todo[0].key} and {len(todo) - 1} more had no answer in {_PATIENCE_SECONDS} s")
                    return
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask_one(self, wish: Wish) -> list[Wish]:
        headers = {"idempotency-key": wish.key, "content-type": "application/json"}
        answer = await self._ask("/v1/jobs", [wish], json.dumps(wish.document(with_key=False)).encode(), headers)
        if answer is None:
            return [wish]
        self._named(wish, str(answer["id"]))
        return []

    async def _ask_many(self, via: Via, portion: list[Wish]) -> list[Wish]:
        documents = [json.dumps(wish.document(with_key=True)) for wish in portion]
        if via is Via.NDJSON:
            kind, body = "application/x-ndjson", "\n".join(documents)
        else:
            kind, body = "application/json", f"[{','.join(documents)}]"
        answer = await self._ask("/v1/jobs/batch", portion, body.encode(), {"content-type": kind})
        if answer is None:
            return portion
        again = []
        for wish, verdict in zip(portion, answer["items"], strict=True):
            if verdict.get("id"):
                self._named(wish, str(verdict["id"]))
                continue
            problem = verdict.get("problem", {})
            self.ledger.write(Refused(now(), wish.key, wish.tenant.id, int(problem.get("status", 0))))
            if problem.get("retryable"):
                again.append(wish)
            else:
                self.wrong.append(f"{wish.key}: {verdict}")
        return again

    async def _ask(self, path: str, portion: list[Wish], body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
        """The answer if it is a yes; else it is in the ledger, and the wishes are to be asked for again."""
        tenant = portion[0].tenant
        headers = headers | {"authorization": f"Bearer {tenant.key}"}
        try:
            async with self.http.post(self.url + path, data=body, headers=headers) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
            self.statuses[0] += 1
            self.ledger.write(*(Unknown(now(), wish.key, tenant.id) for wish in portion))
            return None
        self.statuses[status] += 1
        if status in _OK:
            return answer
        self.ledger.write(*(Refused(now(), wish.key, tenant.id, status) for wish in portion))
        if status != _TOO_SLOW and (status not in _LATER or "retry-after" not in response.headers):
            self.wrong.append(f"{portion[0].key} and {len(portion) - 1} more: {status} {answer}")
        return None

    async def _produce(self, portion: Sequence[Wish]) -> None:
        deadline = now() + _PATIENCE_SECONDS
        records = [
            (
                wish.tenant.id.encode(),
                json.dumps(wish.document(with_key=False)).encode(),
                [("authorization", wish.tenant.key.encode()), ("idempotency-key", wish.key.encode())],
            )
            for wish in portion
        ]
        while True:
            self._asking(portion)
            try:
                await self.producer.send(topics.INTAKE.name, records)
            except (BrokerUnavailableError, OverloadedError):
                self.ledger.write(*(Unknown(now(), wish.key, wish.tenant.id) for wish in portion))
            else:
                # Which job it is nobody has said, but there must be one.
                self.ledger.write(*(Accepted(now(), wish.key, wish.tenant.id, "") for wish in portion))
                self.acknowledged.update((wish.key, wish) for wish in portion)
                return
            if now() > deadline:
                self.wrong.append(f"Kafka took nothing for {_PATIENCE_SECONDS} s")
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    def _asking(self, portion: Sequence[Wish]) -> None:
        at = now()
        self.ledger.write(
            *(
                Accepting(
                    at,
                    wish.key,
                    wish.tenant.id,
                    via=wish.via,
                    body_hash=wish.body_hash,
                    jobs_type=wish.type,
                    expected=wish.expected,
                    due_at=at + wish.delay_seconds if wish.delay_seconds else None,
                    max_attempts=wish.options["max_attempts"],
                    ordering_key=wish.options.get("ordering_key"),
                )
                for wish in portion
            )
        )

    def _named(self, wish: Wish, job: str) -> None:
        self.ledger.write(Accepted(now(), wish.key, wish.tenant.id, job))
        if self.jobs.setdefault(wish.key, job) == job and wish.is_cancelled:
            self.to_cancel.append((wish, job))


@asynccontextmanager
async def open_load(url: str, kafka: str, ledger: Ledger) -> AsyncIterator[Load]:
    """A load on the API at `url` and on the intake topic of `kafka`."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS)) as http,
        Producer(kafka) as producer,
    ):
        yield Load(url, http, producer, ledger)


def _batches(wanted: Sequence[Wish]) -> list[list[Wish]]:
    """Portions of one tenant each, in the order of their first wishes."""
    portions: list[list[Wish]] = []
    filling: dict[str, list[Wish]] = {}
    for wish in wanted:
        portion = filling.get(wish.tenant.id)
        if portion is None or len(portion) == _BATCH:
            portion = filling[wish.tenant.id] = []
            portions.append(portion)
        portion.append(wish)
    return portions
