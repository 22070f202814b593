"""The offsets that a consumer has been asked to commit: merged, sent at most ten times a second, tried again."""

import time
from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as _ClientPartition

from barnabas.kafka.partitions import TopicPartition
from barnabas.runtime.crash_points import CrashPoint, reach

log = structlog.get_logger(__name__)

# Commits cost the broker a write each; a crash in between only has some records read twice.
_REST_SECONDS = 0.1
_RETRY_SECONDS = 1.0


class OffsetCommits:
    """Offsets by partition, each with the epoch for which it holds. Lives on the consumer's thread."""

    def __init__(self, group: str, epochs: Mapping[TopicPartition, int]) -> None:
        self._group = group
        self._epochs = epochs
        self._pending: dict[TopicPartition, tuple[int, int]] = {}
        # Sent, the newest of each partition: several commits may be on their way at a time, and any of them may fail.
        self._unanswered: dict[TopicPartition, tuple[int, int]] = {}
        self._send_at = 0.0

    def add(self, offsets: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Take (epoch, offset) by partition; newer ones replace older ones."""
        self._pending |= offsets

    def forget(self, at: TopicPartition) -> None:
        """The partition has gone."""
        self._pending.pop(at, None)
        self._unanswered.pop(at, None)

    def send_if_due(self, client: Any) -> None:
        """Send without waiting for the answer, unless the last ones went out a moment ago."""
        if self._pending and time.monotonic() >= self._send_at:
            offsets = self._take()
            if offsets:
                reach(CrashPoint.KAFKA_BEFORE_OFFSETS)
                try:
                    client.commit(offsets=offsets, asynchronous=True)
                    reach(CrashPoint.KAFKA_AFTER_OFFSETS)
                except KafkaException as error:
                    self._try_again(str(error.args[0]))

    def send_and_wait(self, client: Any) -> None:
        """Send and wait for the answer: the partitions are about to go. A failure only has records read twice."""
        offsets = self._take()
        if offsets:
            try:
                client.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                log.warning("offset_commit_failed", group=self._group, reason=str(error.args[0]))

    def answered(self, error: Any, partitions: list[Any]) -> None:
        """The library's answer to `send_if_due`."""
        failed = error
        for each in partitions:
            failed = failed or each.error
            at = TopicPartition(each.topic, each.partition)
            if not (error or each.error) and self._unanswered.get(at, (0, None))[1] == each.offset:
                del self._unanswered[at]
        if failed:
            self._try_again(str(failed))

    def _take(self) -> list[Any]:
        taken = {at: each for at, each in self._pending.items() if self._epochs.get(at) == each[0]}
        self._pending.clear()
        self._unanswered |= taken
        self._send_at = time.monotonic() + _REST_SECONDS
        return [_ClientPartition(at.topic, at.partition, offset) for at, (_, offset) in taken.items()]

    def _try_again(self, reason: str) -> None:
        """Put back what has no answer, behind newer ones: a member epoch that moved on is right again after a poll."""
        log.info("offset_commit_postponed", group=self._group, reason=reason)
        self._pending = self._unanswered | self._pending
        self._send_at = time.monotonic() + _RETRY_SECONDS
