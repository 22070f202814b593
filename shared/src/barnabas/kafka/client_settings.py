"""How the Kafka clients are set up; every choice that departs from the library's default has its reason here."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import KafkaError

GroupProtocol = Literal["consumer", "classic"]

CONNECTION_ERRORS = frozenset(
    {
        # The library's own codes have such names.
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
    }
)
"""A broker can't be reached: many times a second while it is away, and the library's own log tells of it too."""

TOPIC_ERRORS = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)
"""A topic isn't there, or another one is in its place."""

_SAY_AGAIN_SECONDS = 30.0


class _Sparse(logging.Filter):
    """Lets one line of a kind through in 30 s: a client without a broker says so ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is new enough. Its kind is what it starts with: `FAIL [barnabas#producer-1]`."""
        kind = record.getMessage().partition("] ")[0]
        now = time.monotonic()
        if now - self._said_at.get(kind, -_SAY_AGAIN_SECONDS) < _SAY_AGAIN_SECONDS:
            return False
        self._said_at = {each: at for each, at in self._said_at.items() if now - at < _SAY_AGAIN_SECONDS}
        self._said_at[kind] = now
        return True


_librdkafka_log = logging.getLogger("barnabas.kafka.librdkafka")
_librdkafka_log.addFilter(_Sparse())


class ClusterWatch:
    """The library's log of one client, handed on; `on_other` hears when another cluster answers than before.

    The library tells of that in its log alone. Called from `poll`.
    """

    def __init__(self, on_other: Callable[[], None]) -> None:
        self._on_other = on_other

    def log(self, level: int, message: str, *parts: object) -> None:
        """As the library calls a logger: its first part is the line's kind."""
        _librdkafka_log.log(level, message, *parts)
        if parts and parts[0] == "CLUSTERID":
            self._on_other()


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """What differs between consumers; the defaults suit a work topic.

    The inbox holds what was read and not yet taken; above `inbox_records` or `inbox_bytes` reading stops, below half of
    both it goes on. In a stream of 5,000 records a second each waits up to `hold_seconds` for company, so that the loop
    is woken less often; less long in a thinner one, and not at all below 1,000.
    """

    group_protocol: GroupProtocol = "consumer"
    remote_assignor: str | None = None
    hold_seconds: float = 0.0
    inbox_records: int = 10_000
    inbox_bytes: int = 16 * 1024 * 1024
    start_offsets_limit_seconds: float = 10.0
    revoke_limit_seconds: float = 2.0


def common(bootstrap: str, client_id: str) -> dict[str, Any]:
    """Settings of every client."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        # A broker that comes back should be found within a second, not within ten.
        "reconnect.backoff.max.ms": 1_000,
        # The limit of every single request; a minute would hold up a rebalance for as long.
        "socket.timeout.ms": 10_000,
        "socket.keepalive.enable": True,
        # Topics that are made (or made again) while we run are noticed this soon; the default is five minutes.
        "topic.metadata.refresh.interval.ms": 10_000,
        # The library's own lines go through our logging, not to standard error.
        "logger": _librdkafka_log,
        "log.connection.close": False,
    }


def producer(bootstrap: str, client_id: str, *, delivery_timeout_seconds: float) -> dict[str, Any]:
    """Settings of a producer: nothing is lost or doubled by its own retries, and a lone record leaves at once."""
    return common(bootstrap, client_id) | {
        "enable.idempotence": True,
        "acks": "all",
        # Java's default, so that a tenant's records meet in one partition whoever produces them.
        "partitioner": "murmur2_random",
        "linger.ms": 1,
        "compression.type": "lz4",
        "delivery.timeout.ms": int(delivery_timeout_seconds * 1_000),
        # The topics have the say; the client's own limit would refuse what intake takes.
        "message.max.bytes": 4 * 1024 * 1024,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 65_536,
        # A topic that doesn't exist fails its records this soon instead of after 30 s.
        "topic.metadata.propagation.max.ms": 5_000,
    }


def consumer(bootstrap: str, client_id: str, *, group: str, options: ConsumerOptions) -> dict[str, Any]:
    """Settings of a group's consumer: commits are ours, the prefetch is small, a new group starts at the beginning."""
    settings = common(bootstrap, client_id) | {
        "group.id": group,
        "group.protocol": options.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # The default would skip every job that was accepted before the group first met.
        "auto.offset.reset": "earliest",
        # A thread that only polls needs no five minutes to prove that it lives.
        "max.poll.interval.ms": 60_000,
        "queued.min.messages": 2_000,
        "queued.max.messages.kbytes": 8_192,
        # By default fetching rests a whole second each time that the prefetch is full.
        "fetch.queue.backoff.ms": 20,
    }
    if options.group_protocol == "classic":
        settings |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 1_000,
        }
    elif options.remote_assignor is not None:
        settings["group.remote.assignor"] = options.remote_assignor
    return settings
