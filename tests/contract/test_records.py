"""The binary envelope of internal topics: other releases, and records in flight, hold us to these bytes."""

from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from barnabas.contract.records import VERSION, Record, RecordKind, decode, encode_job
from barnabas.errors import MalformedRecordError

TENANT = UUID("018bcfe5-6800-7000-8000-00000000000a")
JOB = UUID("018bcfe5-6800-7000-8000-00000000000b")
ENDPOINT = UUID("018bcfe5-6800-7000-8000-00000000000c")

# Version, kind, tenant, job or event, endpoint, fence, due time, priority, queue, type: big-endian.
JOB_BYTES = bytes.fromhex(
    "0101"
    "018bcfe568007000800000000000000a"
    "018bcfe568007000800000000000000b"
    "00000000000000000000000000000000"
    "000000070000018bcfe5680003000200000109"
)  # fmt: skip
DELIVERY_BYTES = bytes.fromhex(
    "0102"
    "018bcfe568007000800000000000000a"
    "018bcfe568007000800000000000000b"
    "018bcfe568007000800000000000000c"
    "00000001000000000000000001000000000000"
)  # fmt: skip
JOB_RECORD = Record(RecordKind.JOB, TENANT, JOB, fence=7, due_ms=1_700_000_000_000, priority=3, queue_id=2, type_id=265)
DELIVERY_RECORD = Record(RecordKind.DELIVERY, TENANT, JOB, ENDPOINT, fence=1)

records = st.builds(
    Record,
    kind=st.sampled_from(RecordKind),
    tenant_id=st.uuids(),
    ref_id=st.uuids(),
    endpoint_id=st.uuids(),
    fence=st.integers(0, 2**32 - 1),
    due_ms=st.integers(0, 2**63 - 1),
    priority=st.integers(0, 3),
    queue_id=st.integers(0, 2**16 - 1),
    type_id=st.integers(0, 2**32 - 1),
)


@pytest.mark.parametrize(("record", "value"), [(JOB_RECORD, JOB_BYTES), (DELIVERY_RECORD, DELIVERY_BYTES)])
def test_these_bytes_are_this_record_for_ever(record: Record, value: bytes) -> None:
    assert record.encode() == value
    assert decode(value) == record


def test_the_key_is_the_tenant_as_direct_producers_write_it() -> None:
    assert JOB_RECORD.key == b"018bcfe5-6800-7000-8000-00000000000a"


@given(records)
def test_what_was_encoded_is_decoded_to_the_same(record: Record) -> None:
    assert decode(record.encode()) == record


@given(st.binary(max_size=200))
@example(JOB_BYTES)
def test_any_bytes_are_a_record_or_refused(value: bytes) -> None:
    try:
        record = decode(value)
    except MalformedRecordError:
        return

    assert record.encode() == value


@given(records, st.integers(0, len(JOB_BYTES) - 1), st.integers(1, 255))
def test_a_changed_byte_gives_another_valid_record_or_is_refused(record: Record, at: int, change: int) -> None:
    value = bytearray(record.encode())
    value[at] ^= change

    try:
        changed = decode(bytes(value))
    except MalformedRecordError:
        return

    assert changed != record
    assert changed.encode() == value
    assert changed.priority in range(4)
    assert changed.due_ms >= 0


@pytest.mark.parametrize("length", range(len(JOB_BYTES)))
def test_a_record_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(MalformedRecordError):
        decode(JOB_BYTES[:length])


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        JOB_BYTES + b"\0",
        bytes([VERSION + 1]) + JOB_BYTES[1:],
        b"\0" + JOB_BYTES[1:],
        JOB_BYTES[:1] + b"\x00" + JOB_BYTES[2:],
        JOB_BYTES[:1] + b"\x03" + JOB_BYTES[2:],
        JOB_BYTES[:-7] + b"\x04" + JOB_BYTES[-6:],
        JOB_BYTES[:-15] + b"\xff" + JOB_BYTES[-14:],
        b'{"schema":1}',
    ],
    ids=[
        "tombstone",
        "empty",
        "longer",
        "newer",
        "version 0",
        "kind 0",
        "kind 3",
        "priority 4",
        "due before 1970",
        "json",
    ],
)
def test_what_encode_can_not_have_made_is_refused(value: bytes | None) -> None:
    with pytest.raises(MalformedRecordError):
        decode(value)


@given(st.uuids(), st.uuids(), st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 2**16 - 1))
def test_a_ready_jobs_envelope_is_the_same_by_the_short_way(
    tenant: UUID, job: UUID, number: int, priority: int, queue_id: int
) -> None:
    record = Record(
        RecordKind.JOB, tenant, job, fence=number, priority=priority, queue_id=queue_id, type_id=number // 2
    )

    short = encode_job(tenant, job, fence=number, priority=priority, queue_id=queue_id, type_id=number // 2)

    assert short == record.encode()
