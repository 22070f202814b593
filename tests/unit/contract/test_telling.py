"""What Kafka is told of committed facts: topic, key and bytes for each kind of outbox row."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barnabas.contract.deliveries import DeadDelivery
from barnabas.contract.events import JobEvent
from barnabas.contract.records import Record, RecordKind, decode
from barnabas.contract.telling import (
    OutboxKind,
    dead_delivery_record,
    delivery_record,
    delivery_retry_record,
    due_ms,
    event_records,
    job_key,
    job_keys,
    job_record,
    retry_record,
    tenant_key,
)
from barnabas.domain.spread import BUCKETS

TENANT = UUID("018bcfe5-6800-7000-8000-00000000000a")
JOB = UUID("018bcfe5-6800-7000-8000-00000000000b")
ENDPOINT = UUID("018bcfe5-6800-7000-8000-00000000000c")
EVENT = UUID("018bcfe5-687b-7000-8000-00000000000d")
KEY = b"018bcfe5-6800-7000-8000-00000000000a"
AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

microseconds = st.integers(0, 4 * 10**15).map(lambda count: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(0, 0, count))


def job_event(reason: str | None) -> JobEvent:
    return JobEvent(
        id=EVENT, type="job.failed", tenant_id=TENANT, job_id=JOB, job_type="echo", attempt=3, fence=4, reason=reason
    )


def test_the_numbers_in_the_outbox_never_change_their_meaning() -> None:
    stored = {kind.name: kind.value for kind in OutboxKind}

    assert stored == {"READY_JOBS": 1, "LATER_JOBS": 2, "ENDED_JOBS": 3, "DELIVERIES": 4}


@pytest.mark.parametrize("priority", range(4))
def test_a_ready_job_names_its_queue_and_its_priority(priority: int) -> None:
    told = job_record(TENANT, JOB, 7, priority, queue_id=2, type_id=9)

    assert told[:4] == (TENANT, JOB, 2, priority)
    assert decode(told.value) == Record(RecordKind.JOB, TENANT, JOB, fence=7, priority=priority, queue_id=2, type_id=9)


@given(st.uuids(), st.sampled_from(BUCKETS))
@settings(max_examples=60, derandomize=True, database=None)
def test_a_job_has_few_keys_whatever_its_tenant_is_spread_over(job_id: UUID, buckets: int) -> None:
    keys = job_keys(TENANT, job_id)

    assert KEY in keys
    assert job_key(TENANT, job_id, buckets) in keys
    assert len(keys) <= len(BUCKETS)


def test_a_key_of_a_bucket_names_the_tenant_and_the_bucket() -> None:
    # The id ends in b.
    assert job_key(TENANT, JOB, 1) == KEY
    assert job_key(TENANT, JOB, 8) == KEY + b"/3"
    assert job_key(TENANT, JOB, 32) == KEY + b"/11"


def test_a_job_with_a_backoff_travels_through_retries() -> None:
    topic, key, value = retry_record(TENANT, JOB, 7, 3, due_at=AT)
    record = decode(value)

    assert (topic, key) == ("barnabas.retries", KEY)
    assert record.due_ms == 1_700_000_000_000
    assert record.priority == 3


def test_a_delivery_names_its_event_and_its_endpoint() -> None:
    topic, key, value = delivery_record(TENANT, EVENT, ENDPOINT, 2)

    assert (topic, key) == ("barnabas.deliveries.retry", KEY)
    assert decode(value) == Record(RecordKind.DELIVERY, TENANT, EVENT, ENDPOINT, fence=2)


def test_a_delivery_that_is_due_later_travels_through_retries() -> None:
    topic, key, value = delivery_retry_record(TENANT, EVENT, ENDPOINT, 2, due_at=AT)
    record = decode(value)

    assert (topic, key) == ("barnabas.retries", KEY)
    assert record.due_ms == 1_700_000_000_000
    assert record.kind is RecordKind.DELIVERY


def test_an_ended_job_is_told_once() -> None:
    (told,) = event_records(job_event(None))

    assert told.topic == "barnabas.results"
    assert told.key == KEY
    assert told.value == job_event(None).encode()
    assert list(told.headers) == [("content-type", b"application/json")]


def test_a_dead_letter_is_told_to_people_too_with_its_reason() -> None:
    result, dead = event_records(job_event("permanent_error"))

    assert (result.topic, dead.topic) == ("barnabas.results", "barnabas.jobs.dlq")
    assert result.value == dead.value
    assert ("reason", b"permanent_error") in dead.headers
    assert ("reason", b"permanent_error") not in result.headers


def test_a_dead_delivery_is_told_to_people_with_its_reason() -> None:
    dead = DeadDelivery(
        id=EVENT, tenant_id=TENANT, event_id=EVENT, endpoint_id=ENDPOINT, job_id=JOB, attempt=8,
        reason="endpoint_gone", error=None, last_status=410, finished_at=AT,
    )  # fmt: skip

    told = dead_delivery_record(dead)

    assert (told.topic, told.key, told.value) == ("barnabas.deliveries.dlq", KEY, dead.encode())
    assert list(told.headers) == [("content-type", b"application/json"), ("reason", b"endpoint_gone")]


def test_writer_and_relay_send_the_same_bytes() -> None:
    # A record is a function of the row: nothing of who sends it, or when, may be in it.
    assert job_record(TENANT, JOB, 7, 1) == job_record(TENANT, JOB, 7, 1)
    assert event_records(job_event("worker_lost")) == event_records(job_event("worker_lost"))


@given(microseconds)
@settings(max_examples=60, derandomize=True, database=None)
def test_a_due_time_is_never_told_too_early_and_hardly_too_late(due_at: datetime) -> None:
    told = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=due_ms(due_at))

    assert timedelta(0) <= told - due_at < timedelta(milliseconds=1)


def test_the_key_is_the_same_for_every_record_of_a_tenant() -> None:
    keys = {
        retry_record(TENANT, JOB, 1, 0, due_at=AT)[1],
        delivery_record(TENANT, EVENT, ENDPOINT, 1)[1],
        event_records(job_event(None))[0].key,
        job_event(None).key,
        decode(job_record(TENANT, JOB, 1, 0).value).key,
        tenant_key(TENANT),
    }

    assert keys == {KEY}
