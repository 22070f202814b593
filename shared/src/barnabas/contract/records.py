"""The fixed binary envelope of internal topics: which job or delivery, under which fence, due when.

Payloads stay in Postgres. What a record says is a function of committed rows, so a writer, the relay and the reconciler
send the same bytes. The first byte is the layout's version: a reader that doesn't know it parks the record.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from barnabas.errors import MalformedRecordError

VERSION = 1
_LAYOUT = struct.Struct(">BB16s16s16sIqBHI")
_NIL = UUID(int=0)


class RecordKind(IntEnum):
    """What an envelope points at."""

    JOB = 1
    DELIVERY = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One envelope.

    `ref_id` is the job's id, or for a delivery the event's id; `endpoint_id` is nil for a job. `fence` is the row's
    fence when the record was made (a claim adds one), `due_ms` Unix milliseconds by the database's clock, 0 for at
    once.
    """

    kind: RecordKind
    tenant_id: UUID
    ref_id: UUID
    endpoint_id: UUID = _NIL
    fence: int = 0
    due_ms: int = 0
    priority: int = 1
    queue_id: int = 0
    type_id: int = 0

    @property
    def key(self) -> bytes:
        """The record's key: the tenant, in the text form that direct producers use too."""
        return str(self.tenant_id).encode()

    def encode(self) -> bytes:
        """The record's value."""
        return _LAYOUT.pack(
            VERSION,
            self.kind,
            self.tenant_id.bytes,
            self.ref_id.bytes,
            self.endpoint_id.bytes,
            self.fence,
            self.due_ms,
            self.priority,
            self.queue_id,
            self.type_id,
        )


def decode(value: bytes | None) -> Record:
    """Read an envelope; raises `MalformedRecordError` for any value that `encode` can't have made."""
    if value is None or len(value) != _LAYOUT.size or value[0] != VERSION:
        raise MalformedRecordError(f"not an envelope of version {VERSION}")
    _, kind, tenant, ref, endpoint, fence, due_ms, priority, queue_id, type_id = _LAYOUT.unpack(value)
    if kind not in (RecordKind.JOB, RecordKind.DELIVERY) or priority > 3 or due_ms < 0:
        raise MalformedRecordError("an envelope whose kind, priority or due time is out of range")
    return Record(
        RecordKind(kind),
        UUID(bytes=tenant),
        UUID(bytes=ref),
        UUID(bytes=endpoint),
        fence=fence,
        due_ms=due_ms,
        priority=priority,
        queue_id=queue_id,
        type_id=type_id,
    )
