"""The writer's side of the outbox: send what a commit left to be told, and remember which rows the broker acknowledged.

A row that isn't acknowledged, or that is never handed in because Kafka is away, stays in Postgres: the relay sends it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from barnabas.errors import BrokerUnavailableError, OverloadedError, UnknownQueueError
from barnabas.kafka.producer import Producer
from barnabas.kafka.routes import Outgoing, Routes

# A broker that is behind for a moment has caught up by then; one that is away hasn't. The relay takes what is five
# seconds old, so nothing that is held here is told by both.
_HELD_SECONDS = 3.0
_HELD_RECORDS = 20_000
_LOOK_SECONDS = 0.01

_Records = list[Outgoing | tuple[Any, ...]]


class Teller:
    """One per process. `acknowledged` wakes whoever deletes rows when nothing else does."""

    def __init__(self, producer: Producer, routes: Routes | None = None) -> None:
        """`routes` are the process' own; without them it knows no queue but the default."""
        self._producer = producer
        self._routes = routes or Routes()
        self._acknowledged: list[int] = []
        self._unsettled = 0
        self._arrived = asyncio.Event()
        self._held: deque[tuple[float, int, _Records]] = deque()
        self._held_records = 0

    def tell(self, outbox_id: int, records: Iterable[Outgoing | tuple[Any, ...]]) -> None:
        """Send the records of one committed outbox row: ready jobs, or (topic, key, value[, headers]).

        Never waits, never fails. While the producer has too much to do, records are held for a moment, in their order:
        left to the relay, everybody's jobs would start five seconds late for one tenant's burst. What can't be sent by
        then stays in the outbox for the relay.
        """
        if self._held or not self._producer.accepting:
            self._hold(outbox_id, list(records))
        else:
            self._send(outbox_id, records)

    def _hold(self, outbox_id: int, records: _Records) -> None:
        if self._held_records + len(records) > _HELD_RECORDS:
            return
        if not self._held:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._send_held)
        self._held.append((time.monotonic(), outbox_id, records))
        self._held_records += len(records)

    def _send_held(self) -> None:
        given_up = time.monotonic() - _HELD_SECONDS
        while self._held and (self._held[0][0] < given_up or self._producer.accepting):
            since, outbox_id, records = self._held.popleft()
            self._held_records -= len(records)
            if since >= given_up:
                self._send(outbox_id, records)
        if self._held:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._send_held)

    def _send(self, outbox_id: int, records: Iterable[Outgoing | tuple[Any, ...]]) -> None:
        try:
            by_topic = self._routes.by_topic(records)
        except UnknownQueueError:
            return  # another process made the queue a moment ago
        pending = len(by_topic)
        if not pending:
            self._note(outbox_id)
            return

        def settled(sent: "asyncio.Future[None]") -> None:
            nonlocal pending
            self._unsettled -= 1
            if sent.cancelled() or sent.exception() is not None:
                return  # unknown: the row stays for the relay
            pending -= 1
            if not pending:
                self._note(outbox_id)

        for topic, batch in by_topic.items():
            try:
                sent = self._producer.start_send(topic, batch)
            except (BrokerUnavailableError, OverloadedError):
                return
            self._unsettled += 1
            sent.add_done_callback(settled)

    def take_acknowledged(self) -> list[int]:
        """Outbox rows to delete; whoever doesn't delete them gives them back with `untaken`. See `deleting`."""
        taken, self._acknowledged = self._acknowledged, []
        self._arrived.clear()
        return taken

    def untaken(self, outbox_ids: list[int]) -> None:
        """These rows were not deleted after all."""
        self._acknowledged += outbox_ids
        if outbox_ids:
            self._arrived.set()

    @contextmanager
    def deleting(self) -> Iterator[list[int]]:
        """Acknowledged outbox rows, for the block to delete; they come back if it fails, however it does."""
        told = self.take_acknowledged()
        try:
            yield told
        except BaseException:
            self.untaken(told)
            raise

    @property
    def pending(self) -> bool:
        """Whether there are rows to delete."""
        return bool(self._acknowledged)

    @property
    def busy(self) -> bool:
        """Whether there are rows to delete, or may be as soon as Kafka has answered."""
        return bool(self._acknowledged or self._unsettled or self._held)

    def wake(self) -> None:
        """Have `wait` return now, for the stop."""
        self._arrived.set()

    async def wait(self) -> None:
        """Return when there are rows to delete."""
        await self._arrived.wait()

    def _note(self, outbox_id: int) -> None:
        self._acknowledged.append(outbox_id)
        self._arrived.set()
