"""The one table of topics: names, keys, partitions and retention.

The product makes them (`barnabas topics`) and a loop of the retry-scheduler keeps them so; those of a queue are made
with the queue. Nobody writes a topic's name anywhere else.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

WORK_PARTITIONS = 24
"""Partitions of every work topic: a number with many divisors, so that most fleet sizes share them evenly."""

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS

PRIORITY_NAMES = ("low", "medium", "high", "critical")
"""Priorities 0 to 3, by name."""

DEFAULT_QUEUE = "default"
"""The queue of jobs that name none. It is always there, with the number 0."""

QUEUE_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$(?!\n)"
"""What a queue may be called: a part of its topics' names. Python's $ lets a newline follow."""

_JOBS_PREFIX = "barnabas.jobs."
_queue_name = re.compile(QUEUE_NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as the product makes it."""

    name: str
    key: Literal["tenant"]
    retention_ms: int
    partitions: int = WORK_PARTITIONS
    record_bytes_max: int = 0
    """Longest record that the topic takes, where it isn't Kafka's default of about a megabyte."""
    delay_seconds: float = 0.0
    """How long a record rests in a delay tier, counted from its append; zero for every other topic."""

    @property
    def config(self) -> dict[str, str]:
        """The topic's configuration, as Kafka's admin API takes it."""
        config = {"retention.ms": str(self.retention_ms), "cleanup.policy": "delete", "compression.type": "producer"}
        if self.record_bytes_max:
            config["max.message.bytes"] = str(self.record_bytes_max)
        if self.delay_seconds:
            # A tier's heads are in order only by the broker's own append time: producers' clocks and due times aren't.
            config["message.timestamp.type"] = "LogAppendTime"
        return config


RECORD_BYTES_MAX = 2 * 1024 * 1024
"""A body of a megabyte with its headers, and the problem document beside it when it is rejected."""

INTAKE = Topic("barnabas.intake", "tenant", _DAY_MS, record_bytes_max=RECORD_BYTES_MAX)
INTAKE_REJECTED = Topic("barnabas.intake.rejected", "tenant", _DAY_MS, record_bytes_max=RECORD_BYTES_MAX)


@lru_cache(maxsize=256)
def topics_of_queue(queue: str) -> tuple[Topic, ...]:
    """The four jobs topics of a queue, indexed by priority."""
    assert is_queue_name(queue), "checked where the name came in"
    prefix = _JOBS_PREFIX if queue == DEFAULT_QUEUE else f"{_JOBS_PREFIX}{queue}."
    return tuple(Topic(prefix + name, "tenant", 3 * _DAY_MS) for name in PRIORITY_NAMES)


def topics_of_queues(queues: Iterable[str]) -> tuple[Topic, ...]:
    """The jobs topics of all these queues."""
    return tuple(topic for queue in queues for topic in topics_of_queue(queue))


def job_topic(queue: str, priority: int) -> str:
    """The name of the topic with a queue's ready jobs of one priority."""
    return topics_of_queue(queue)[priority].name


def is_queue_name(name: str) -> bool:
    """Whether a queue may have that name."""
    return _queue_name.match(name) is not None


JOBS = topics_of_queue(DEFAULT_QUEUE)
"""The four jobs topics of the queue that is always there, indexed by priority."""
RETRIES = Topic("barnabas.retries", "tenant", 3 * _DAY_MS)
DELAY_TIERS = tuple(
    Topic(f"barnabas.delay.{label}", "tenant", _DAY_MS, delay_seconds=seconds)
    for label, seconds in (("1s", 1.0), ("5s", 5.0), ("30s", 30.0), ("2m", 120.0), ("10m", 600.0), ("1h", 3600.0))
)
"""Shortest first; each holds one fixed delay, so its records leave in the order in which they came."""
RESULTS = Topic("barnabas.results", "tenant", 7 * _DAY_MS)
DELIVERIES_RETRY = Topic("barnabas.deliveries.retry", "tenant", 3 * _DAY_MS)
JOBS_DLQ = Topic("barnabas.jobs.dlq", "tenant", 30 * _DAY_MS)
DELIVERIES_DLQ = Topic("barnabas.deliveries.dlq", "tenant", 30 * _DAY_MS)

ALL = (
    INTAKE,
    INTAKE_REJECTED,
    *JOBS,
    RETRIES,
    *DELAY_TIERS,
    RESULTS,
    DELIVERIES_RETRY,
    JOBS_DLQ,
    DELIVERIES_DLQ,
)
"""What every installation has, whatever queues it makes."""
BY_NAME = {topic.name: topic for topic in ALL}
