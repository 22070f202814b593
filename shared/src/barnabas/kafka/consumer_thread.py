"""The thread that owns the library's consumer: it reads, commits, pauses and answers rebalances.

Every call to the library happens here (it serialises them anyway, and a commit from elsewhere would wait behind a
poll). A round runs the commands, polls for at most 20 ms (ten times as long when nothing has come or been asked for
lately), drains what is ready, and hands it to the event loop in one call. A client that Kafka has declared dead
(cluster or topic wiped, fenced) is replaced after a pause; the process stays.
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer as _Client
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as _ClientPartition

from barnabas.domain.grouping import HOLD_SECONDS_MAX, RateMeter, hold_seconds
from barnabas.kafka import client_settings
from barnabas.kafka.client_settings import ConsumerOptions
from barnabas.kafka.loop_side import LoopSide, Taken, ask
from barnabas.kafka.offset_commits import OffsetCommits
from barnabas.kafka.partitions import ConsumedRecord, TopicPartition, headers_of, shown, size_of
from barnabas.runtime import metrics

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Bounds the wait of a command (a commit, a pause) behind a poll without records.
_POLL_SECONDS = 0.02
# Commands follow records within moments. A poll takes 75 us of CPU: fifty a second would be most of an idle process.
_POLL_IDLE_SECONDS = 0.2
_IDLE_AFTER_SECONDS = 1.0
_BATCH_RECORDS = 500
# pause() throws the prefetch away, so a full inbox first just stops reading, and pauses when that lasts.
_PAUSE_AFTER_SECONDS = 1.0

_REBUILD_PAUSE_FIRST_SECONDS = 0.2
_REBUILD_PAUSE_CAP_SECONDS = 5.0
# A client that worked for this long was healthy: the next failure starts with the short pause again.
_HEALTHY_SECONDS = 30.0
# Topics may be made a moment after their consumer; errors about them that last longer call for a new client.
_TOPIC_PATIENCE_SECONDS = 5.0


class ConsumerThread:
    """One group member's thread. `delivered_*` count what was handed to the loop, ever."""

    def __init__(
        self,
        bootstrap: str,
        *,
        group: str,
        topics: Sequence[str],
        client_id: str,
        options: ConsumerOptions,
        side: LoopSide,
        loop: asyncio.AbstractEventLoop,
        taken: Taken,
        asks_start_offsets: bool,
    ) -> None:
        self._settings = client_settings.consumer(bootstrap, client_id, group=group, options=options) | {
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
        }
        self._group = group
        self._topics = list(topics)
        self._options = options
        self._side = side
        self._loop = loop
        self._taken = taken
        self._arrivals = RateMeter()
        self._asks_start_offsets = asks_start_offsets
        self._thread = threading.Thread(target=self._run, name=f"kafka-{group}", daemon=True)
        self._ended: Future[None] = Future()
        self._stopping = threading.Event()
        self._commands: deque[Callable[[Any], None]] = deque()
        self._rebalances = {event: metrics.rebalances.labels(group, event) for event in _REBALANCE_EVENTS}
        self._pauses = metrics.consumer_pauses.labels(group)
        self.delivered_records = 0
        self.delivered_bytes = 0
        self._forget_client()

    def _forget_client(self) -> None:
        self._epochs: dict[TopicPartition, int] = {}
        self._last_offsets: dict[TopicPartition, int] = {}
        self._commits = OffsetCommits(self._group, self._epochs)
        self._paused_by_caller: set[TopicPartition] = set()
        self._full_since: float | None = None
        self._busy_at = time.monotonic()
        self._paused_when_full = False
        self._topic_trouble_since: float | None = None
        self._broken: str | None = None

    # Called on the event loop.

    def start(self) -> None:
        """Join the group."""
        self._thread.start()

    async def stop(self, timeout: float) -> bool:
        """Leave the group and end; false when that took longer than `timeout`."""
        if not self._thread.is_alive():
            return True
        self._stopping.set()
        _, late = await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=timeout)
        return not late

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Commit (epoch, offset) by partition, soon."""
        self._commands.append(lambda _client: self._commits.add(offsets))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these."""
        self._commands.append(lambda client: self._pause(client, partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these again."""
        self._commands.append(lambda client: self._resume(client, partitions))

    def seek(self, at: TopicPartition, offset: int, *, before: int, after: int) -> None:
        """Read on from `offset` under the epoch `after`, if the partition is still held under `before`."""
        self._commands.append(lambda client: self._seek(client, at, offset, before=before, after=after))

    # Everything below runs on the thread.

    def _run(self) -> None:
        try:
            failures = 0
            while not self._stopping.is_set():
                started = time.monotonic()
                reason = self._live()
                if reason is None:
                    break
                failures = 1 if time.monotonic() - started > _HEALTHY_SECONDS else failures + 1
                pause = min(_REBUILD_PAUSE_CAP_SECONDS, _REBUILD_PAUSE_FIRST_SECONDS * 2.0 ** min(failures - 1, 16))
                pause *= 0.5 + random.random() / 2
                self._rebalances["rebuilt"].inc()
                log.error("consumer_rebuilt", group=self._group, reason=reason, rest_seconds=round(pause, 3))
                self._stopping.wait(pause)
        except BaseException as error:  # handed to whoever calls `get`
            log.exception("consumer_thread_failed", group=self._group)
            self._tell(self._side.fail, error)
        finally:
            self._ended.set_result(None)

    def _live(self) -> str | None:
        """One client's life; returns why it must be replaced, or None at the stop."""
        self._forget_client()
        client: Any = _Client(self._settings)
        try:
            client.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
            while not self._stopping.is_set() and self._broken is None:
                self._round(client)
            if self._broken is None:
                self._run_commands(client)
                self._commits.send_and_wait(client)
        except KafkaException as error:
            self._broken = self._broken or str(error.args[0])
        if self._broken is not None:
            # What it held is gone in any case; nothing may be committed through a client whose state is unknown.
            held = list(self._epochs)
            self._give_up(held, lost=True)
            self._forget(held)
        try:
            client.close()
        except (KafkaException, RuntimeError) as error:
            log.warning("consumer_close_failed", group=self._group, reason=str(error))
        return self._broken

    def _round(self, client: Any) -> None:
        self._run_commands(client)
        self._commits.send_if_due(client)
        if not self._has_room(client):
            # Nothing is read for now: rest as long as a poll would.
            self._stopping.wait(_POLL_SECONDS)
            return
        idle = time.monotonic() - self._busy_at > _IDLE_AFTER_SECONDS
        first = client.poll(_POLL_IDLE_SECONDS if idle else _POLL_SECONDS)
        if first is None:
            return
        self._busy_at = time.monotonic()
        read = [first, *client.consume(_BATCH_RECORDS - 1, self._hold_seconds(self._busy_at))]
        self._arrivals.add(len(read), now=self._busy_at)
        records = [record for record in map(self._record, read) if record is not None]
        if records:
            self.delivered_records += len(records)
            self.delivered_bytes += size_of(records)
            self._topic_trouble_since = None
            self._tell(self._side.deliver, records)

    def _hold_seconds(self, now: float) -> float:
        share = hold_seconds(self._arrivals.rate(now=now)) / HOLD_SECONDS_MAX
        return share * self._options.hold_seconds

    def _record(self, message: Any) -> ConsumedRecord | None:
        error = message.error()
        if error is not None:
            self._on_error(error)
            return None
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        # A plain tuple equals the named one and is made in a third of the time.
        at: Any = (topic, partition)
        epoch = self._epochs.get(at)
        if epoch is None or self._broken is not None:
            return None
        if offset <= self._last_offsets.get(at, -1):
            # Under one assignment offsets only grow, unless the topic was wiped and made again faster than the group
            # noticed. Whoever counts offsets must start anew, and so do we.
            self._broken = f"offsets of {topic}/{partition} went back: the topic was made again"
            return None
        self._last_offsets[at] = offset
        return ConsumedRecord(
            topic,
            partition,
            offset,
            message.key(),
            message.value(),
            headers_of(message),
            message.timestamp()[1],
            epoch,
        )

    def _run_commands(self, client: Any) -> None:
        while self._commands:
            self._commands.popleft()(client)
            self._busy_at = time.monotonic()

    # The bound of the inbox.

    def _has_room(self, client: Any) -> bool:
        """Whether to read (or, when everything is paused, to poll for rebalances)."""
        records = self.delivered_records - self._taken.records
        size = self.delivered_bytes - self._taken.bytes
        options = self._options
        if self._paused_when_full:
            if records <= options.inbox_records // 2 and size <= options.inbox_bytes // 2:
                self._paused_when_full = False
                self._full_since = None
                client.resume(_for_client(at for at in self._epochs if at not in self._paused_by_caller))
            return True
        if records < options.inbox_records and size < options.inbox_bytes:
            self._full_since = None
            return True
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        if now - self._full_since < _PAUSE_AFTER_SECONDS:
            return False
        self._paused_when_full = True
        self._pauses.inc()
        client.pause(_for_client(self._epochs))
        return True

    def _pause(self, client: Any, partitions: Iterable[TopicPartition]) -> None:
        held = [at for at in partitions if at in self._epochs and at not in self._paused_by_caller]
        if held and not self._paused_when_full:
            client.pause(_for_client(held))
        self._paused_by_caller.update(held)

    def _resume(self, client: Any, partitions: Iterable[TopicPartition]) -> None:
        held = [at for at in partitions if at in self._paused_by_caller]
        self._paused_by_caller.difference_update(held)
        if held and not self._paused_when_full:
            client.resume(_for_client(held))

    def _seek(self, client: Any, at: TopicPartition, offset: int, *, before: int, after: int) -> None:
        if self._epochs.get(at) != before:
            return
        self._epochs[at] = after
        self._last_offsets.pop(at, None)
        self._commits.forget(at)
        # Taking the partition out and in again works in every state; seek() fails until the first fetch has begun.
        client.incremental_unassign(_for_client([at]))
        client.incremental_assign([_ClientPartition(at.topic, at.partition, offset)])
        if self._paused_when_full or at in self._paused_by_caller:
            client.pause(_for_client([at]))

    def _on_commit(self, error: Any, partitions: list[Any]) -> None:
        # Each client has commits of its own, so these can't be handed to the library directly.
        self._commits.answered(error, partitions)

    # Rebalances: called by the library inside poll() and close().

    def _on_assign(self, client: Any, partitions: list[Any]) -> None:
        if not partitions:
            client.incremental_assign([])
            return
        epochs = {TopicPartition(each.topic, each.partition): self._side.next_epoch() for each in partitions}
        starts: Mapping[TopicPartition, int] = {}
        if self._asks_start_offsets:
            try:
                starts = ask(self._loop, self._side.begin_assignment(epochs), self._options.start_offsets_limit_seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, reading from elsewhere would be wrong
                self._broken = f"no start offsets: {type(error).__name__}: {error}"
                client.incremental_assign([])
                return
        else:
            self._tell(self._side.assigned, epochs)
        self._epochs.update(epochs)
        self._rebalances["assigned"].inc()
        log.info("partitions_assigned", group=self._group, partitions=shown(epochs))
        for each in partitions:
            start = starts.get(TopicPartition(each.topic, each.partition))
            if start is not None:
                each.offset = start
        client.incremental_assign(partitions)
        # A partition that was paused when it left comes back paused: the library keeps that flag.
        client.resume(partitions)
        if self._paused_when_full:
            client.pause(partitions)

    def _on_revoke(self, client: Any, partitions: list[Any]) -> None:
        gone = [TopicPartition(each.topic, each.partition) for each in partitions]
        self._commits.add(self._give_up(gone, lost=False))
        self._commits.send_and_wait(client)
        self._forget(gone)
        client.incremental_unassign(partitions)

    def _on_lost(self, client: Any, partitions: list[Any]) -> None:
        gone = [TopicPartition(each.topic, each.partition) for each in partitions]
        self._give_up(gone, lost=True)
        self._forget(gone)
        client.incremental_unassign(partitions)

    def _give_up(self, partitions: Sequence[TopicPartition], *, lost: bool) -> Mapping[TopicPartition, tuple[int, int]]:
        """Tell the loop's side that partitions go; returns what to commit before."""
        held = [at for at in partitions if at in self._epochs]
        if not held:
            return {}
        self._rebalances["lost" if lost else "revoked"].inc()
        log.info("partitions_lost" if lost else "partitions_revoked", group=self._group, partitions=shown(held))
        try:
            return ask(self._loop, self._side.end_assignment(held, lost=lost), self._options.revoke_limit_seconds)
        except Exception as error:  # noqa: BLE001 - the partitions go in any case; what isn't committed is read again
            log.warning("revoke_step_failed", group=self._group, reason=f"{type(error).__name__}: {error}")
            # A loop that stood still was never asked, and would hold them for ever.
            self._tell(self._side.unassigned, held)
            return {}

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for at in partitions:
            self._epochs.pop(at, None)
            self._last_offsets.pop(at, None)
            self._commits.forget(at)
            self._paused_by_caller.discard(at)

    # Errors.

    def _on_error(self, error: Any) -> None:
        code = error.code()
        if error.fatal() or code == KafkaError._FATAL:  # noqa: SLF001 - the library's name for it
            self._broken = self._broken or str(error)
        elif code in client_settings.TOPIC_ERRORS:
            self._on_topic_error(error)
        elif code not in client_settings.CONNECTION_ERRORS:
            log.info("consumer_error", group=self._group, reason=str(error))

    def _on_topic_error(self, error: Any) -> None:
        now = time.monotonic()
        if self._topic_trouble_since is None:
            self._topic_trouble_since = now
            log.warning("consumer_topic_missing", group=self._group, reason=str(error))
        elif now - self._topic_trouble_since > _TOPIC_PATIENCE_SECONDS:
            self._broken = self._broken or str(error)

    # The way to the event loop.

    def _tell(self, step: Callable[[T], None], value: T) -> None:
        try:
            self._loop.call_soon_threadsafe(step, value)
        except RuntimeError:
            # The loop is closed: the process ends, and whoever forgot to close us gets nothing more.
            self._stopping.set()


_REBALANCE_EVENTS = ("assigned", "revoked", "lost", "rebuilt")


def _for_client(partitions: Iterable[TopicPartition]) -> list[Any]:
    return [_ClientPartition(at.topic, at.partition) for at in partitions]
