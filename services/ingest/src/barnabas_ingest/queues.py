"""A queue is made by its first job: its topics, then its number, and only then is the job accepted.

So the first job of a new queue needs Kafka, which no other job does. A queue that is in the table has its topics.
"""

import asyncio

import structlog

from barnabas.contract.problems import refused
from barnabas.contract.topics import is_queue_name, topics_of_queue
from barnabas.errors import BarnabasError, BrokerUnavailableError
from barnabas.kafka.admin import Admin
from barnabas.postgres.queues import Queues

log = structlog.get_logger(__name__)

# Shorter than a caller's patience. It takes less than a second; five on a busy machine whose broker has just started.
_TOPICS_SECONDS = 12.0
# After a failure Kafka is left alone for so long: a batch may name a hundred new queues, one after the other.
_REST_SECONDS = 2.0


class _Making:
    """A queue that is being made: whoever else wants it waits for the end, and hears of a failure."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.error: BarnabasError | None = None


class QueueMaker:
    """Looks queues up, and makes those that are new. One per process."""

    def __init__(self, queues: Queues, admin: Admin, *, queues_max: int, topic_replication: int) -> None:
        self._queues = queues
        self._admin = admin
        self._queues_max = queues_max
        self._topic_replication = topic_replication
        self._making: dict[str, _Making] = {}
        self._rests_until = 0.0

    def known_id(self, name: str) -> int | None:
        """The number of a queue that is known here."""
        return self._queues.id_of(name)

    async def ensure(self, name: str) -> int:
        """The number of that queue, which is made if it is new.

        Raises `ProblemError` for what can't be a queue's name, `TooManyQueuesError`, and `BrokerUnavailableError` or
        `DatabaseUnavailableError` when it can't be made now.
        """
        while (known := self.known_id(name)) is None:
            if not is_queue_name(name):
                raise refused("validation_failed", "1 to 32 of a-z, 0-9 and -, not - at its ends", pointer="/queue")
            making = self._making.get(name)
            if making is None:
                await self._make(name)
                continue
            # A burst of first jobs asks Kafka once.
            await making.over.wait()
            if making.error is not None:
                raise making.error
        return known

    async def _make(self, name: str) -> None:
        making = self._making[name] = _Making()
        try:
            number = await self._queues.make(name, queues_max=self._queues_max, make_topics=self._make_topics)
            log.info("queue_known", queue=name, queue_id=number)
        except BarnabasError as error:
            making.error = error
            log.warning("queue_not_made", queue=name, code=error.code, reason=str(error))
            raise
        finally:
            # Whose caller went away while it made the queue leaves no error: the next one begins anew.
            del self._making[name]
            making.over.set()

    async def _make_topics(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until:
            raise BrokerUnavailableError("Kafka did not make the topics of a new queue a moment ago")
        try:
            async with asyncio.timeout(_TOPICS_SECONDS):
                await self._admin.ensure_topics(
                    topics=topics_of_queue(name), replication_factor=self._topic_replication
                )
        except (TimeoutError, BrokerUnavailableError) as error:
            self._rests_until = loop.time() + _REST_SECONDS
            raise BrokerUnavailableError(f"Kafka did not make the topics of a new queue: {error}") from error
