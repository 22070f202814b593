"""The fixed binary envelope of internal topics: which job or delivery, under which fence, due when.

Payloads stay in Postgres. What a record says is a function of committed rows, so a writer, the relay and the reconciler
send the same bytes. The first byte is the layout's version: a reader that doesn't know it parks the record.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from uuid import UUID

import msgspec

from barnabas.errors import MalformedRecordError

VERSION = 1
_LAYOUT = struct.Struct(">BB16s16s16sIqBHI")
_NIL = UUID(int=0)
_NIL_BYTES = _NIL.bytes


class RecordKind(IntEnum):
    """What an envelope points at."""

    JOB = 1
    DELIVERY = 2


_JOB = int(RecordKind.JOB)
_KINDS = {int(kind): kind for kind in RecordKind}


class Record(msgspec.Struct, frozen=True, gc=False):
    """One envelope. A msgspec struct, because a dataclass costs five times as much to make.

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


def encode_job(tenant_id: UUID, job_id: UUID, *, fence: int, priority: int, queue_id: int, type_id: int) -> bytes:
    """The envelope of a job that may run now, without a `Record` in between: half of what its writer spends on it."""
    return _LAYOUT.pack(VERSION, _JOB, tenant_id.bytes, job_id.bytes, _NIL_BYTES, fence, 0, priority, queue_id, type_id)


def _from_bytes(value: bytes) -> UUID:
    return UUID(bytes=value)


def decode(value: bytes | None, make_id: Callable[[bytes], UUID] = _from_bytes) -> Record:
    """Read an envelope; raises `MalformedRecordError` for any value that `encode` can't have made.

    `make_id` turns 16 bytes into an id, for callers that have a quicker one than the standard library's.
    """
    if value is None or len(value) != _LAYOUT.size or value[0] != VERSION:
        raise MalformedRecordError(f"not an envelope of version {VERSION}")
    _, kind, tenant, ref, endpoint, fence, due_ms, priority, queue_id, type_id = _LAYOUT.unpack(value)
    named = _KINDS.get(kind)
    if named is None or priority > 3 or due_ms < 0:
        raise MalformedRecordError("an envelope whose kind, priority or due time is out of range")
    return Record(
        named,
        make_id(tenant),
        make_id(ref),
        _NIL if endpoint == _NIL_BYTES else make_id(endpoint),
        fence=fence,
        due_ms=due_ms,
        priority=priority,
        queue_id=queue_id,
        type_id=type_id,
    )
