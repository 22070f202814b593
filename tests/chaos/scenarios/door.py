"""Load at the door that goes on whatever happens behind it: single posts at an even pace, each answer kept.

Nothing is asked again: what the door said to a request the first time is what is judged. No answer at all (a lost
connection, a time-out) means that the job may or may not exist, and nothing is claimed of it.
"""

import asyncio
import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.support.stack import Stack

NO_ANSWER = 0
_ANSWER_SECONDS = 30.0
_REQUESTS_MAX = 128


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose jobs are submitted."""

    id: str
    key: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the door said to one request."""

    key: str
    """The request's idempotency key."""
    sent_at: float
    at: float
    """Both monotonic."""
    status: int
    job: str | None
    retry_after: bool


def echo(number: int) -> dict[str, object]:
    """The shortest job."""
    return {"type": "echo", "payload": number}


@dataclass(slots=True)
class Door:
    """A load in progress."""

    url: str
    tenants: Sequence[Tenant]
    pace: float
    """Posts a second."""
    job: Callable[[int], dict[str, object]] = echo
    requests_max: int = _REQUESTS_MAX
    """In flight at once: while the door hangs, the load waits with it instead of piling up."""
    answers: list[Answer] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def accepted(self) -> list[str]:
        """The ids that were promised."""
        return [answer.job for answer in self.answers if answer.job is not None]

    @property
    def unknown(self) -> int:
        """Requests without an answer."""
        return sum(answer.status == NO_ANSWER for answer in self.answers)

    @property
    def statuses(self) -> Counter[int]:
        """How often each answer was given."""
        return Counter(answer.status for answer in self.answers)

    def other_than(self, *statuses: int) -> int:
        """Answers with any other status."""
        return sum(answer.status not in statuses for answer in self.answers)

    def first_accepted(self, *, after: float) -> Answer | None:
        """The first answer from a moment on that accepts a job."""
        return min(
            (answer for answer in self.answers if answer.job is not None and answer.at >= after),
            key=lambda answer: answer.at,
            default=None,
        )

    async def until_accepting(self, *, timeout: float = 90.0) -> Answer:
        """Wait for the next job that is accepted."""
        begin, seen = time.monotonic(), len(self.answers)
        while True:
            for answer in self.answers[seen:]:
                if answer.job is not None and answer.sent_at >= begin:
                    return answer
            assert time.monotonic() - begin < timeout, f"nothing accepted within {timeout:g} s: {self.statuses}"
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """No further requests."""
        self._stop.set()

    async def keep_asking(self, http: aiohttp.ClientSession) -> None:
        """Until `close`; returns when the last answer is there."""
        room = asyncio.Semaphore(self.requests_max)
        run = uuid.uuid4().hex[:8]
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                await room.acquire()
                due = begin + number / self.pace
                try:
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await self._stop.wait()
                except TimeoutError:
                    pass
                if self._stop.is_set():
                    return
                posting = group.create_task(self._post(http, f"{run}-{number}", number))
                posting.add_done_callback(lambda _: room.release())

    async def _post(self, http: aiohttp.ClientSession, key: str, number: int) -> None:
        tenant = self.tenants[number % len(self.tenants)]
        headers = {"authorization": f"Bearer {tenant.key}", "idempotency-key": key}
        sent_at = time.monotonic()
        status, job, retry_after = NO_ANSWER, None, False
        try:
            async with http.post(f"{self.url}/v1/jobs", json=self.job(number), headers=headers) as response:
                body = await response.read()
                status, retry_after = response.status, "retry-after" in response.headers
                if status == 202:
                    job = str(json.loads(body)["id"])
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = NO_ANSWER
        self.answers.append(Answer(key, sent_at, time.monotonic(), status, job, retry_after))


async def make_tenants(stack: Stack, count: int, label: str) -> list[Tenant]:
    """New ones: several, so that their work is spread over partitions and workers."""
    return [Tenant(*await stack.tenant(f"{label}-{number}-{uuid.uuid4().hex[:6]}")) for number in range(count)]


@asynccontextmanager
async def open_door(
    where: Stack | str,
    tenants: Sequence[Tenant],
    *,
    pace: float,
    job: Callable[[int], dict[str, object]] = echo,
    requests_max: int = _REQUESTS_MAX,
    keeps_connections: bool = True,
) -> AsyncIterator[Door]:
    """Submit until the end of the block, to a stack's door or to an address; then every answer is in.

    Without kept connections each post has one of its own: of several who listen, every one gets its share.
    """
    url = where if isinstance(where, str) else where.told["api_url"]
    door = Door(url, tenants, pace, job, requests_max)
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS),
            connector=aiohttp.TCPConnector(limit=requests_max, force_close=not keeps_connections),
        ) as http,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(door.keep_asking(http))
        try:
            yield door
        finally:
            door.close()
