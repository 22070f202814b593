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
        self._sent: dict[TopicPartition, tuple[int, int]] = {}
        self._send_at = 0.0

    def add(self, offsets: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """Take (epoch, offset) by partition; newer ones replace older ones."""
        self._pending |= offsets

    def forget(self, at: TopicPartition) -> None:
        """The partition has gone."""
        self._pending.pop(at, None)

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
        failed = error or next((each.error for each in partitions if each.error is not None), None)
        if failed is not None:
            self._try_again(str(failed))

    def _take(self) -> list[Any]:
        self._sent, self._pending = self._pending, {}
        self._send_at = time.monotonic() + _REST_SECONDS
        return [
            _ClientPartition(at.topic, at.partition, offset)
            for at, (epoch, offset) in self._sent.items()
            if self._epochs.get(at) == epoch
        ]

    def _try_again(self, reason: str) -> None:
        """Put the last offsets back, behind newer ones: a member epoch that moved on is right again after a poll."""
        log.info("offset_commit_postponed", group=self._group, reason=reason)
        self._pending = self._sent | self._pending
        self._send_at = time.monotonic() + _RETRY_SECONDS
