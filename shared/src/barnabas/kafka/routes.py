"""Which topic and which key each record gets: the one way from what is to be told to what is sent.

A ready job goes to the topic of its queue, under its tenant's key, or one of several while the tenant is hot. Whoever
sends records of jobs has one `Routes`, so that all of its records count.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from barnabas.contract.records import Record, RecordKind
from barnabas.contract.telling import Envelope, ReadyJob, Told, job_key
from barnabas.contract.topics import DEFAULT_QUEUE, DELIVERIES_RETRY, WORK_PARTITIONS, job_topic
from barnabas.domain.spread import Spread
from barnabas.errors import UnknownQueueError
from barnabas.kafka.producer import OutgoingRecord

Outgoing = ReadyJob | Envelope | Told


def only_default(queue_id: int) -> str | None:
    """Names of queues for who never meets another one."""
    return DEFAULT_QUEUE if queue_id == 0 else None


class Routes:
    """One per process. `name_of` gives the name of a queue's number, None for one not known here yet."""

    def __init__(
        self, name_of: Callable[[int], str | None] = only_default, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.spread = Spread(partitions=WORK_PARTITIONS)
        self._name_of = name_of
        self._monotonic = monotonic

    def by_topic(self, records: Iterable[Outgoing | tuple[Any, ...]]) -> dict[str, list[OutgoingRecord]]:
        """Records as the producer takes them, in their order; raises `UnknownQueueError`."""
        now = self._monotonic()
        routed: dict[str, list[OutgoingRecord]] = {}
        topics: dict[tuple[int, int], list[OutgoingRecord]] = {}
        add = self.spread.add
        for record in records:
            if isinstance(record, ReadyJob):
                tenant_id, job_id, queue_id, priority, value = record
                group = topics.get((queue_id, priority))
                if group is None:
                    group = routed.setdefault(self.topic(queue_id, priority), [])
                    topics[(queue_id, priority)] = group
                group.append((job_key(tenant_id, job_id, add(tenant_id, now=now)), value, None))
            else:
                routed.setdefault(record[0], []).append((record[1], record[2], record[3] if len(record) > 3 else None))
        return routed

    def topic(self, queue_id: int, priority: int) -> str:
        """The topic of a queue's ready jobs; raises `UnknownQueueError`."""
        name = self._name_of(queue_id)
        if name is None:
            raise UnknownQueueError(f"nothing here knows the name of queue {queue_id}")
        return job_topic(name, priority)

    def topic_when_due(self, record: Record) -> str:
        """Where a record goes once its delay is over, its bytes as they are; raises `UnknownQueueError`."""
        if record.kind is RecordKind.JOB:
            return self.topic(record.queue_id, record.priority)
        return DELIVERIES_RETRY.name

    def key_when_due(self, record: Record) -> bytes:
        """The key under which it goes there."""
        return self.key(record.tenant_id, record.ref_id) if record.kind is RecordKind.JOB else record.key

    def key(self, tenant_id: UUID, job_id: UUID) -> bytes:
        """The key of one more record of that tenant."""
        return job_key(tenant_id, job_id, self.spread.add(tenant_id, now=self._monotonic()))
