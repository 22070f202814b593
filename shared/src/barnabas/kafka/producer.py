"""The producer: batches of records in, one future per batch out.

`confluent_kafka.Producer` is asynchronous by itself; its delivery reports are served by `poll(0)` on the event loop,
each millisecond while something is unacknowledged. No thread polls: a delivery report takes the interpreter's lock once
for each record, and beside a busy loop a polling thread was measured at 259 records/s (100,000/s this way; a lone
record is acknowledged in 4 ms instead of 6).

Anything but an acknowledgement means "unknown": the record may be in the topic or not. Whoever sends has a row in the
outbox and leaves it there.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as _Client

from barnabas.errors import BrokerUnavailableError, OverloadedError
from barnabas.kafka import client_settings
from barnabas.runtime import metrics

log = structlog.get_logger(__name__)

OutgoingHeaders = Sequence[tuple[str, bytes]] | Mapping[str, bytes]
OutgoingRecord = tuple[bytes | None, bytes | None, OutgoingHeaders | None]
"""Key, value, headers or None."""

# Beyond either of these a writer stops producing and leaves its rows to the relay.
_ACCEPTING_OLDEST_SECONDS = 1.0
_ACCEPTING_RECORDS = 20_000
# Records that the client's own queue had no room for wait here; more than this is refused.
_OVERFLOW_RECORDS = 100_000

_POLL_SECONDS = 0.001
# An outage needs no thousand polls a second.
_POLL_SLOW_SECONDS = 0.02
# How often errors and lines of the library's log are looked for when nothing is on its way.
_POLL_IDLE_SECONDS = 5.0
_SLOW_AFTER_SECONDS = 0.1

_REBUILD_PAUSE_CAP_SECONDS = 10.0
# A client that worked for this long was healthy: the next failure starts with a rebuild at once again.
_HEALTHY_SECONDS = 60.0


class Producer:
    """Sends records to Kafka. Made, used and closed on one event loop.

    A client that the library has declared broken (idempotence lost, cluster wiped) is replaced inside; what it held
    unacknowledged fails as unknown.
    """

    def __init__(self, bootstrap: str, *, client_id: str = "barnabas", delivery_timeout_seconds: float = 10.0) -> None:
        self._settings = client_settings.producer(
            bootstrap, client_id, delivery_timeout_seconds=delivery_timeout_seconds
        ) | {"error_cb": self._on_error, "logger": client_settings.ClusterWatch(self._on_other_cluster)}
        self._delivery_timeout_seconds = delivery_timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._client: Any = _Client(self._settings)
        self._open: dict[int, _Batch] = {}
        self._finished: list[_Batch] = []
        self._overflow: deque[_Batch] = deque()
        self._next_batch = 0
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._fatal: str | None = None
        self._rebuilds = 0
        self._rebuild_at = 0.0
        self._closed = False
        self._acknowledged = metrics.produced.labels("acknowledged")
        self._unknown = metrics.produced.labels("unknown")
        self._schedule(_POLL_IDLE_SECONDS)

    async def __aenter__(self) -> "Producer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def queued(self) -> int:
        """Records that are sent and not yet acknowledged."""
        return self._queued

    @property
    def oldest_unacknowledged_seconds(self) -> float:
        """Age of the oldest batch that is not yet acknowledged; 0 without one."""
        for batch in self._open.values():
            return time.monotonic() - batch.started
        return 0.0

    @property
    def accepting(self) -> bool:
        """Whether a writer should produce now; if not, it leaves its outbox rows to the relay."""
        return (
            self._fatal is None
            and self._queued < _ACCEPTING_RECORDS
            and self.oldest_unacknowledged_seconds < _ACCEPTING_OLDEST_SECONDS
        )

    async def send(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        """Send and wait for the acknowledgement of all; raises `BrokerUnavailableError` when any is unknown."""
        await self.start_send(topic, records)

    def start_send(self, topic: str, records: Sequence[OutgoingRecord]) -> "asyncio.Future[None]":
        """Send without waiting; the future ends when all are acknowledged, or with `BrokerUnavailableError`.

        Records of one call keep their order within a partition. Raises `OverloadedError` when far too many wait
        already. An abandoned future is harmless: its records go out all the same.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if not records:
            future.set_result(None)
            return future
        if self._closed:
            raise BrokerUnavailableError("the producer is closed")
        if sum(len(batch.records) for batch in self._overflow) > _OVERFLOW_RECORDS:
            raise OverloadedError("too many records wait for Kafka")
        batch = _Batch(self._next_batch, topic, records, future, self._finished)
        self._next_batch += 1
        self._open[batch.number] = batch
        self._queued += len(records)
        if self._overflow or self._fatal is not None or not self._produce(batch):
            self._overflow.append(batch)
        self._schedule(_POLL_SECONDS)
        return future

    async def flush(self, timeout: float) -> bool:
        """Wait until nothing is unacknowledged; false when that took longer than `timeout`."""
        waiting = [batch.settled for batch in self._open.values()]
        if not waiting:
            return True
        _, late = await asyncio.wait(waiting, timeout=timeout)
        return not late

    async def close(self, timeout: float = 5.0) -> None:
        """Flush for at most `timeout` seconds; what is unacknowledged then fails as unknown."""
        if self._closed:
            return
        self._closed = True
        await self.flush(timeout)
        if self._timer is not None:
            self._timer.cancel()
        self._fail_all("the producer was closed")
        await self._discard(self._client)

    def _produce(self, batch: "_Batch") -> bool:
        """Hand the rest of a batch to the client; false when the client's queue is full."""
        produce = self._client.produce
        topic, report = batch.topic, batch.report
        try:
            while batch.handed_over < len(batch.records):
                key, value, headers = batch.records[batch.handed_over]
                if headers:
                    produce(topic, value, key, on_delivery=report, headers=headers)
                else:
                    produce(topic, value, key, on_delivery=report)
                batch.handed_over += 1
        except BufferError:
            return False
        except KafkaException as error:
            reason = error.args[0]
            if _is_fatal(reason):
                self._break(str(reason))
                return False
            # Refused here and now (a record too large, say): it and the rest of its batch never left.
            batch.give_up(str(reason))
        return True

    def _schedule(self, seconds: float) -> None:
        """Poll in `seconds`, or earlier if that is planned already."""
        at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._poll)

    def _poll(self) -> None:
        self._timer = None
        try:
            self._client.poll(0)
        except KafkaException as error:
            # Some of what breaks a client is raised here, and told to nobody else.
            self._on_error(error.args[0])
        while self._finished:
            self._settle(self._finished.pop())
        if self._fatal is not None:
            self._rebuild()
        while self._overflow and self._fatal is None:
            batch = self._overflow[0]
            if time.monotonic() - batch.started > self._delivery_timeout_seconds:
                batch.give_up("the client's queue stayed full")
            elif not self._produce(batch):
                break
            self._overflow.popleft()
        oldest = self.oldest_unacknowledged_seconds
        metrics.produce_queue_records.set(self._queued)
        metrics.produce_oldest_seconds.set(oldest)
        if not self._open and self._fatal is None:
            self._schedule(_POLL_IDLE_SECONDS)
        else:
            self._schedule(_POLL_SECONDS if oldest < _SLOW_AFTER_SECONDS else _POLL_SLOW_SECONDS)

    def _settle(self, batch: "_Batch") -> None:
        if self._open.pop(batch.number, None) is None:
            return
        count = len(batch.records)
        self._queued -= count
        if batch.failure is None:
            self._acknowledged.inc(count)
            if not batch.settled.done():
                batch.settled.set_result(None)
            return
        self._unknown.inc(count)
        log.warning("produce_unacknowledged", topic=batch.topic, records=count, reason=batch.failure)
        if not batch.settled.done():
            batch.settled.set_exception(BrokerUnavailableError(f"{batch.topic}: {batch.failure}"))
            # A caller may have gone away (its outbox row stays): then nobody asks, and that is no mistake of anyone.
            batch.settled.exception()

    def _fail_all(self, reason: str) -> None:
        self._overflow.clear()
        for batch in list(self._open.values()):
            batch.failure = batch.failure or reason
            self._settle(batch)

    def _on_other_cluster(self) -> None:
        # A wiped cluster hands out its producers' ids anew: two with the same one are one to the broker, which takes
        # the records of the second for repetitions of the first's, acknowledges them, and keeps nothing.
        self._break("another cluster answers")

    def _on_error(self, error: Any) -> None:
        if _is_fatal(error):
            self._break(str(error))
        elif error.code() not in client_settings.CONNECTION_ERRORS:
            log.info("producer_error", reason=str(error))

    def _break(self, reason: str) -> None:
        if self._fatal is None:
            self._fatal = reason
            if time.monotonic() - self._rebuild_at > _HEALTHY_SECONDS:
                self._rebuilds = 0
            # The first rebuild is at once; a cluster that breaks each new client gets ever longer rests.
            pause = min(_REBUILD_PAUSE_CAP_SECONDS, 0.1 * 2.0 ** min(self._rebuilds, 16)) * (0.5 + random.random() / 2)
            self._rebuild_at = time.monotonic() + (pause if self._rebuilds else 0.0)
            self._rebuilds += 1

    def _rebuild(self) -> None:
        if self._closed or time.monotonic() < self._rebuild_at:
            return
        log.error("producer_rebuilt", reason=self._fatal, unacknowledged=self._queued)
        broken, self._client = self._client, _Client(self._settings)
        self._fail_all(f"the client broke: {self._fatal}")
        self._fatal = None
        # Ending a client waits for its threads; nothing else does, so the loop mustn't.
        self._loop.run_in_executor(None, _end, broken)

    async def _discard(self, client: Any) -> None:
        await self._loop.run_in_executor(None, _end, client)


class _Batch:
    """One call of `start_send` on its way."""

    __slots__ = ("_finished", "failure", "handed_over", "number", "records", "settled", "started", "topic", "waiting")

    def __init__(
        self,
        number: int,
        topic: str,
        records: Sequence[OutgoingRecord],
        settled: "asyncio.Future[None]",
        finished: "list[_Batch]",
    ) -> None:
        self.number = number
        self.topic = topic
        self.records = records
        self.settled = settled
        self.started = time.monotonic()
        self.waiting = len(records)
        self.handed_over = 0
        self.failure: str | None = None
        self._finished = finished

    def report(self, error: Any, _record: Any) -> None:
        """The library's delivery report for one of the records; called from `poll` only."""
        if error is not None and self.failure is None:
            self.failure = str(error)
        self.waiting -= 1
        if self.waiting == 0:
            self._finished.append(self)

    def give_up(self, reason: str) -> None:
        """Count what was never handed over as failed; what is on its way still gets its report."""
        self.failure = self.failure or reason
        self.waiting -= len(self.records) - self.handed_over
        self.handed_over = len(self.records)
        if self.waiting == 0:
            self._finished.append(self)


def _is_fatal(error: Any) -> bool:
    """Whether the client is of no use any more. What a broken one refuses to take has the code and lacks the mark."""
    return bool(error.fatal() or error.code() == KafkaError._FATAL)  # noqa: SLF001 - the library's name for it


def _end(client: Any) -> None:
    client.purge()
    client.close()
