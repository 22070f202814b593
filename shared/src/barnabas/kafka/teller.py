"""The writer's side of the outbox: send what a commit left to be told, and remember which rows the broker acknowledged.

A row that isn't acknowledged, or that is never handed in because Kafka is away, stays in Postgres: the relay sends it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from barnabas.errors import BrokerUnavailableError, OverloadedError
from barnabas.kafka.producer import Producer

Headers = Sequence[tuple[str, bytes]] | None


class Teller:
    """One per process. `acknowledged` wakes whoever deletes rows when nothing else does."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._acknowledged: list[int] = []
        self._arrived = asyncio.Event()

    def tell(self, outbox_id: int, records: Iterable[tuple[Any, ...]]) -> None:
        """Send the records of one committed outbox row: (topic, key, value[, headers]). Never waits, never fails."""
        if not self._producer.accepting:
            return
        by_topic: dict[str, list[tuple[bytes, bytes, Headers]]] = {}
        for topic, key, value, *headers in records:
            by_topic.setdefault(topic, []).append((key, value, headers[0] if headers else None))
        pending = len(by_topic)
        if not pending:
            self._note(outbox_id)
            return

        def settled(sent: "asyncio.Future[None]") -> None:
            nonlocal pending
            if sent.cancelled() or sent.exception() is not None:
                return  # unknown: the row stays for the relay
            pending -= 1
            if not pending:
                self._note(outbox_id)

        for topic, batch in by_topic.items():
            try:
                self._producer.start_send(topic, batch).add_done_callback(settled)
            except (BrokerUnavailableError, OverloadedError):
                return

    def take_acknowledged(self) -> list[int]:
        """Outbox rows to delete; the caller gives them back with `untaken` if its transaction fails."""
        taken, self._acknowledged = self._acknowledged, []
        self._arrived.clear()
        return taken

    def untaken(self, outbox_ids: list[int]) -> None:
        """These rows were not deleted after all."""
        self._acknowledged += outbox_ids
        if outbox_ids:
            self._arrived.set()

    @property
    def pending(self) -> bool:
        """Whether there are rows to delete."""
        return bool(self._acknowledged)

    async def wait(self) -> None:
        """Return when there are rows to delete."""
        await self._arrived.wait()

    def _note(self, outbox_id: int) -> None:
        self._acknowledged.append(outbox_id)
        self._arrived.set()
