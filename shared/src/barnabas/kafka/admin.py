"""Topics: made, widened and configured from the one table; and who the cluster is.

The library's admin client is synchronous: each call goes to a thread here, and its exceptions are translated here.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import admin as _untyped

from barnabas.contract import topics as table
from barnabas.contract.topics import Topic
from barnabas.errors import BrokerUnavailableError
from barnabas.kafka import client_settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

# The library exports these names without types.
_library: Any = _untyped

_LIMIT_SECONDS = 15.0
_LIST_AGAIN_SECONDS = 0.05


class Admin:
    """An open admin client. Every method raises `BrokerUnavailableError` when Kafka is away."""

    def __init__(self, bootstrap: str, *, client_id: str = "barnabas") -> None:
        self.bootstrap = bootstrap
        self._client: Any = _library.AdminClient(client_settings.common(bootstrap, client_id))

    async def __aenter__(self) -> "Admin":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the client; ending it waits for its threads, so that happens off the loop."""
        client, self._client = self._client, None
        await asyncio.to_thread(_end, [client])

    async def call(self, ask: Callable[[Any], T]) -> T:
        """Run `ask(client)` in a thread; it may block for as long as the client's own limits allow."""
        try:
            return await asyncio.to_thread(ask, self._client)
        except KafkaException as error:
            raise BrokerUnavailableError(str(error.args[0])) from error
        except TimeoutError as error:
            raise BrokerUnavailableError("Kafka did not answer in time") from error

    async def ensure_topics(self, *, replication_factor: int = 1, topics: Sequence[Topic] = table.ALL) -> list[str]:
        """Make what is missing, add partitions where there are too few, set configurations that differ.

        With three copies or more, a new topic takes a record only while all of them but one are in step: what Kafka
        has acknowledged then outlives any one broker.
        Returns one sentence per change, nothing when all was well. Partitions are never taken away: Kafka can't.
        """
        changes = await self.call(lambda client: _ensure(client, topics, replication_factor))
        for change in changes:
            log.info("topic_changed", change=change)
        return changes

    async def topic_ids(self, topics: Sequence[str] = tuple(table.BY_NAME)) -> tuple[str, dict[str, str]]:
        """The cluster's id and the ids of those topics that exist: other ids mean other, empty logs."""
        return await self.call(lambda client: _topic_ids(client, topics))

    async def delete_topics(self, topics: Sequence[str]) -> None:
        """Delete topics and all that is in them; a topic that doesn't exist is deleted already."""
        await self.call(lambda client: _delete(client, topics))


async def ensure_topics(bootstrap: str, *, replication_factor: int = 1) -> list[str]:
    """`Admin.ensure_topics` with a client of its own."""
    async with Admin(bootstrap) as admin:
        return await admin.ensure_topics(replication_factor=replication_factor)


async def topic_ids(bootstrap: str) -> tuple[str, dict[str, str]]:
    """`Admin.topic_ids` with a client of its own."""
    async with Admin(bootstrap) as admin:
        return await admin.topic_ids()


async def delete_topics(bootstrap: str, topics: Sequence[str]) -> None:
    """`Admin.delete_topics` with a client of its own."""
    async with Admin(bootstrap) as admin:
        await admin.delete_topics(topics)


def _ensure(client: Any, topics: Sequence[Topic], replication_factor: int) -> list[str]:
    existing = client.list_topics(timeout=_LIMIT_SECONDS).topics
    missing = [topic for topic in topics if topic.name not in existing]
    changes: list[str] = []
    made: set[str] = set()
    if missing:
        in_step = {"min.insync.replicas": str(replication_factor - 1)} if replication_factor > 2 else {}
        wanted = [
            _library.NewTopic(topic.name, topic.partitions, replication_factor, config=topic.config | in_step)
            for topic in missing
        ]
        for name, done in client.create_topics(wanted, operation_timeout=_LIMIT_SECONDS).items():
            # Another process may have been quicker, or the broker's list may lag behind its own creations.
            if _settled(done, but=KafkaError.TOPIC_ALREADY_EXISTS):
                made.add(name)
                changes.append(f"made {name}")
        existing = _list_until_there(client, [topic.name for topic in missing])
    present = [topic for topic in topics if topic.name not in made]
    narrow = [topic for topic in present if len(existing[topic.name].partitions) < topic.partitions]
    if narrow:
        asked = [_library.NewPartitions(topic.name, topic.partitions) for topic in narrow]
        for name, done in client.create_partitions(asked).items():
            if _settled(done, but=KafkaError.INVALID_PARTITIONS):
                changes.append(
                    f"partitions of {name}: {len(existing[name].partitions)} -> {_wanted_partitions(topics, name)}"
                )
    return changes + _ensure_configs(client, present)


def _list_until_there(client: Any, names: Sequence[str]) -> Any:
    """The broker's list of topics once it has all of `names`: a creation is answered before the list knows of it."""
    return _read_until(
        lambda: client.list_topics(timeout=_LIMIT_SECONDS).topics,
        lambda existing: all(name in existing and existing[name].partitions for name in names),
    )


def _read_until(read: Callable[[], T], is_wanted: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not is_wanted(found := read()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(_LIST_AGAIN_SECONDS)
    return found


def _wanted_partitions(topics: Sequence[Topic], name: str) -> int:
    return next(topic.partitions for topic in topics if topic.name == name)


def _ensure_configs(client: Any, topics: Sequence[Topic]) -> list[str]:
    if not topics:
        return []
    asked = {topic.name: _library.ConfigResource(_library.ResourceType.TOPIC, topic.name) for topic in topics}
    told = {resource.name: future for resource, future in client.describe_configs(list(asked.values())).items()}
    changes: list[str] = []
    alterations: list[Any] = []
    for topic in topics:
        current = told[topic.name].result(_LIMIT_SECONDS)
        different = {
            name: value for name, value in topic.config.items() if name not in current or current[name].value != value
        }
        if different:
            entries = [
                _library.ConfigEntry(name, value, incremental_operation=_library.AlterConfigOpType.SET)
                for name, value in different.items()
            ]
            alterations.append(
                _library.ConfigResource(_library.ResourceType.TOPIC, topic.name, incremental_configs=entries)
            )
            changes += [
                f"{name} of {topic.name}: {current[name].value if name in current else None} -> {value}"
                for name, value in different.items()
            ]
    if alterations:
        for future in client.incremental_alter_configs(alterations).values():
            future.result(_LIMIT_SECONDS)
    return changes


def _topic_ids(client: Any, topics: Sequence[str]) -> tuple[str, dict[str, str]]:
    cluster_id = str(client.describe_cluster(request_timeout=_LIMIT_SECONDS).result(_LIMIT_SECONDS).cluster_id)
    described = client.describe_topics(TopicCollection(list(topics)), request_timeout=_LIMIT_SECONDS)
    ids: dict[str, str] = {}
    for name, future in described.items():
        if _settled(future, but=KafkaError.UNKNOWN_TOPIC_OR_PART):
            ids[name] = str(future.result().topic_id)
    return cluster_id, ids


def _delete(client: Any, topics: Sequence[str]) -> None:
    if topics:
        _, ids = _topic_ids(client, topics)
        for future in client.delete_topics(list(topics), operation_timeout=_LIMIT_SECONDS).values():
            _settled(future, but=KafkaError.UNKNOWN_TOPIC_OR_PART)
        _wait_until_gone(client, ids)


def _wait_until_gone(client: Any, ids: Mapping[str, str]) -> None:
    """A deletion is answered before the list knows of it: who makes the topic anew would find it there already."""
    if ids:
        _read_until(lambda: _topic_ids(client, list(ids))[1], lambda left: not ids.items() & left.items())


def _settled(future: "Future[Any]", *, but: int) -> bool:
    """Wait for one answer; false when it is the error `but`, which the caller expects. Raises every other one."""
    try:
        future.result(_LIMIT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() == but:
            return False
        raise
    return True


def _end(clients: list[Any]) -> None:
    # The client has no close(): it ends when its last reference goes, here.
    clients.clear()
