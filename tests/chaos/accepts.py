"""The load of a chaos run: jobs of several tenants, by every way in.

Each has a key, so that an unknown answer (a time-out, a lost connection) can be asked again without making two jobs.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from barnabas.contract import topics
from barnabas.errors import BrokerUnavailableError, OverloadedError
from barnabas.kafka.producer import Producer

_BATCH = 100
_RETRY_SECONDS = 0.2
_TRIES_MAX = 600


@dataclass(frozen=True, slots=True)
class ChaosTenant:
    """A tenant of the run."""

    id: str
    key: str
    secret: str
    """Of its endpoint."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One job to be submitted: `key` is its idempotency key, and names it in every later check."""

    tenant: ChaosTenant
    key: str
    type: str
    payload: object
    expected: str
    """The state that it must end in."""

    def document(self, *, with_key: bool) -> dict[str, object]:
        """As the API takes it. Retries are quick, so that a run is over soon."""
        fields: dict[str, object] = {
            "type": self.type,
            "payload": self.payload,
            "retry": {"base_seconds": 0.5, "factor": 2, "cap_seconds": 5, "jitter": "full"},
        }
        return fields | ({"idempotency_key": self.key} if with_key else {})


@dataclass(slots=True)
class Accepted:
    """What was accepted, by key; for records in Kafka the id is known only at the end."""

    ids: dict[str, str] = field(default_factory=dict)
    by_kafka: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    """Answers that may never be given: a 500, or two ids for one key."""

    def note(self, key: str, job_id: str) -> None:
        """The API named this job for this key."""
        if self.ids.setdefault(key, job_id) != job_id:
            self.wrong.append(f"{key} is {self.ids[key]} and {job_id}")


def wishes(tenants: Sequence[ChaosTenant], count: int, choice: random.Random) -> list[Wish]:
    """Mostly echoes, some that fail first, some that fail for good."""
    made = []
    for number in range(count):
        tenant = tenants[number % len(tenants)]
        key = f"k{number}"
        kind = choice.random()
        if kind < 0.96:
            made.append(Wish(tenant, key, "echo", {"n": number, "pad": "x" * choice.randrange(200)}, "succeeded"))
        elif kind < 0.985:
            made.append(Wish(tenant, key, "fail", {"times": 1, "error": "retryable"}, "succeeded"))
        else:
            made.append(Wish(tenant, key, "fail", {"times": 99, "error": "permanent"}, "failed"))
    return made


async def submit_all(
    wanted: Sequence[Wish], *, api_url: str, kafka: str, accepted: Accepted, pace: float, choice: random.Random
) -> None:
    """Submit by single posts (a tenth), batches and Kafka, at about `pace` jobs a second, until all are accepted."""
    single = [wish for wish in wanted if choice.random() < 0.1]
    singles = {wish.key for wish in single}
    rest = [wish for wish in wanted if wish.key not in singles]
    batched, direct = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as http,
        Producer(kafka) as producer,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_post_singles(http, api_url, single, accepted, pace / 10))
        group.create_task(_post_batches(http, api_url, batched, accepted, pace * 0.45))
        group.create_task(_produce(producer, direct, accepted, pace * 0.45))


async def _post_singles(
    http: aiohttp.ClientSession, api_url: str, wanted: Sequence[Wish], accepted: Accepted, pace: float
) -> None:
    room = asyncio.Semaphore(32)

    async def post(wish: Wish) -> None:
        headers = {"authorization": f"Bearer {wish.tenant.key}", "idempotency-key": wish.key}
        answer = await _until_answered(http, f"{api_url}/v1/jobs", wish.document(with_key=False), headers, accepted)
        accepted.note(wish.key, str(answer["id"]))
        room.release()

    async with asyncio.TaskGroup() as group:
        for wish in wanted:
            await room.acquire()
            group.create_task(post(wish))
            await asyncio.sleep(1 / pace)


async def _post_batches(
    http: aiohttp.ClientSession, api_url: str, wanted: Sequence[Wish], accepted: Accepted, pace: float
) -> None:
    by_tenant: dict[ChaosTenant, list[Wish]] = {}
    for wish in wanted:
        by_tenant.setdefault(wish.tenant, []).append(wish)
    batches = [own[i : i + _BATCH] for own in by_tenant.values() for i in range(0, len(own), _BATCH)]
    for batch in batches:
        todo = batch
        for _ in range(_TRIES_MAX):
            headers = {"authorization": f"Bearer {batch[0].tenant.key}"}
            documents = [wish.document(with_key=True) for wish in todo]
            answer = await _until_answered(http, f"{api_url}/v1/jobs/batch", documents, headers, accepted)
            again = []
            for wish, verdict in zip(todo, answer["items"], strict=True):
                if verdict.get("id"):
                    accepted.note(wish.key, str(verdict["id"]))
                elif verdict.get("problem", {}).get("retryable"):
                    again.append(wish)
                else:
                    accepted.wrong.append(f"{wish.key}: {verdict}")
            todo = again
            if not todo:
                break
            await asyncio.sleep(_RETRY_SECONDS)
        await asyncio.sleep(len(batch) / pace)


async def _produce(producer: Producer, wanted: Sequence[Wish], accepted: Accepted, pace: float) -> None:
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        records = [
            (
                wish.tenant.id.encode(),
                json.dumps(wish.document(with_key=False)).encode(),
                [("authorization", wish.tenant.key.encode()), ("idempotency-key", wish.key.encode())],
            )
            for wish in batch
        ]
        for _ in range(_TRIES_MAX):
            try:
                # After a time-out some may be there already: their keys make the second record the same job.
                await producer.send(topics.INTAKE.name, records)
                break
            except (BrokerUnavailableError, OverloadedError):
                await asyncio.sleep(_RETRY_SECONDS)
        else:
            raise AssertionError("Kafka took no records")
        accepted.by_kafka.update(wish.key for wish in batch)
        await asyncio.sleep(len(batch) / pace)


async def _until_answered(
    http: aiohttp.ClientSession, url: str, body: object, headers: dict[str, str], accepted: Accepted
) -> dict[str, Any]:
    """The first answer that is neither a lost connection nor a 503."""
    for _ in range(_TRIES_MAX):
        try:
            async with http.post(url, json=body, headers=headers) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
                if response.status in (200, 202):
                    return answer
                if response.status != 503:
                    accepted.wrong.append(f"{response.status}: {answer}")
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
            pass  # unknown: it may or may not have been accepted, and the key makes asking again harmless
        await asyncio.sleep(_RETRY_SECONDS)
    raise AssertionError(f"{url} accepted nothing in {_TRIES_MAX} tries")
