"""Queues: names once, small numbers in rows and records, and how each divides its slots among the priorities.

There are few, so a process keeps all of them in memory: a number never changes its name. New ones are found by reading
again, shares change with the revision `sharing` that a heartbeat brings.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg

from barnabas.contract.topics import DEFAULT_QUEUE
from barnabas.errors import RejectedError
from barnabas.postgres.database import Database, Session


class TooManyQueuesError(RejectedError):
    """There are as many queues as may be: use one of them."""

    code = "too_many_queues"


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue."""

    queue_id: int
    name: str
    shares: tuple[int, ...]
    """Parts of the slots by priority, low to critical, while all four have work."""


class Queues:
    """The queues that this process knows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_id: dict[int, Queue] = {}
        self._ids: dict[str, int] = {DEFAULT_QUEUE: 0}
        self._missed = False

    def name_of(self, queue_id: int) -> str | None:
        """The name behind a number; None when it isn't known here, which `read_missed` then sees to."""
        queue = self._by_id.get(queue_id)
        if queue is not None:
            return queue.name
        if queue_id == 0:
            return DEFAULT_QUEUE
        self._missed = True
        return None

    def id_of(self, name: str) -> int | None:
        """The number of a queue that is known here."""
        return self._ids.get(name)

    @property
    def names(self) -> list[str]:
        """Every queue's name, the default's first."""
        return list(self._ids)

    @property
    def known(self) -> Sequence[Queue]:
        """Every queue as last read, by number."""
        return tuple(self._by_id.values())

    async def read(self) -> None:
        """Read all of them."""
        self._missed = False
        for queue in await list_queues(self._database):
            self._by_id[queue.queue_id] = queue
            self._ids[queue.name] = queue.queue_id

    async def read_missed(self) -> bool:
        """Read them if a number was asked for that is not known; returns whether."""
        if not self._missed:
            return False
        await self.read()
        return True

    async def make(self, name: str, *, queues_max: int, make_topics: Callable[[str], Awaitable[object]]) -> int:
        """The number of the queue of that name, made if there is none; raises `TooManyQueuesError`.

        A queue is in the table only once `make_topics(name)` has returned: whoever finds it there may tell Kafka of its
        jobs. What that raises passes, and nothing is made. `name` is a queue's name.
        """
        if name not in self._ids:
            await self.read()
        if name not in self._ids and len(self._ids) < queues_max:
            await make_topics(name)
            await self._database.run(lambda session: _insert(session, name, queues_max))
            await self.read()
        if name not in self._ids:
            raise TooManyQueuesError
        return self._ids[name]


async def list_queues(database: Database) -> list[Queue]:
    """All queues, by number."""
    return [_queue(row) for row in await database.fetch("list_queues")]


async def set_shares(database: Database, name: str, shares: Sequence[int]) -> Queue | None:
    """Divide a queue's slots anew, low to critical; None when there is no such queue. Workers hear of it."""

    async def step(session: Session) -> Queue | None:
        async with session.transaction():
            await session.execute("raise_revision", "sharing")
            row = await session.fetchrow("set_queue_shares", name, list(shares))
            return None if row is None else _queue(row)

    return await database.run(step)


async def _insert(session: Session, name: str, queues_max: int) -> None:
    # The revision's row is the lock: of many who make queues at once each counts what the one before it has made.
    async with session.transaction():
        await session.execute("raise_revision", "sharing")
        await session.execute("insert_queue", name, queues_max)


def _queue(row: asyncpg.Record) -> Queue:
    return Queue(row["queue_id"], row["name"], tuple(row["shares"]))
