"""Which topic and key a record gets: by its queue, its priority, and how much its tenant sends."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.contract import topics
from barnabas.contract.records import Record, RecordKind, decode
from barnabas.contract.telling import delivery_record, job_keys, job_record, tenant_key
from barnabas.errors import UnknownQueueError
from barnabas.kafka.routes import Routes

TENANT, OTHER = UUID(int=1), UUID(int=2)
NAMES = {0: "default", 3: "gpu"}

records = st.builds(
    Record,
    kind=st.sampled_from(RecordKind),
    tenant_id=st.uuids(),
    ref_id=st.uuids(),
    priority=st.integers(0, 3),
    queue_id=st.sampled_from([0, 3]),
)


def still() -> float:
    return 100.0


def test_ready_jobs_go_to_the_topics_of_their_queue_in_order() -> None:
    routes = Routes(NAMES.get, monotonic=still)
    jobs = [job_record(TENANT, UUID(int=number), 0, number % 4, 3 if number % 2 else 0) for number in range(16)]

    routed = routes.by_topic(jobs)

    assert set(routed) == {
        "barnabas.jobs.low",
        "barnabas.jobs.gpu.medium",
        "barnabas.jobs.high",
        "barnabas.jobs.gpu.critical",
    }
    assert [decode(value).ref_id.int for _, value, _ in routed["barnabas.jobs.gpu.medium"]] == [1, 5, 9, 13]
    assert {key for group in routed.values() for key, _, _ in group} == {tenant_key(TENANT)}


def test_other_records_keep_their_topic_their_key_and_their_headers() -> None:
    routes = Routes(monotonic=still)
    headers = [("reason", b"r")]

    routed = routes.by_topic([delivery_record(TENANT, OTHER, OTHER, 2), ("a", b"k", b"v"), ("a", b"k", b"w", headers)])

    assert routed["a"] == [(b"k", b"v", None), (b"k", b"w", headers)]
    assert [key for key, _, _ in routed[topics.DELIVERIES_RETRY.name]] == [tenant_key(TENANT)]


def test_a_queue_that_nobody_knows_here_is_an_error_that_says_so() -> None:
    routes = Routes(NAMES.get, monotonic=still)

    with pytest.raises(UnknownQueueError, match="queue 4"):
        routes.by_topic([job_record(TENANT, OTHER, 0, 1, 4)])
    with pytest.raises(UnknownQueueError):
        Routes().topic(3, 1)


def test_a_hot_tenant_has_many_keys_and_a_quiet_one_beside_it_has_one() -> None:
    routes = Routes(NAMES.get, monotonic=still)
    hot = [job_record(TENANT, uuid4(), 0, 1) for _ in range(2_000)]
    quiet = [job_record(OTHER, uuid4(), 0, 1) for _ in range(20)]

    routed = routes.by_topic([*hot, *quiet])["barnabas.jobs.medium"]

    keys = {decode(value).ref_id: key for key, value, _ in routed}
    assert len({keys[job.job_id] for job in hot}) > 24
    assert {keys[job.job_id] for job in quiet} == {tenant_key(OTHER)}
    # The reconciler looks where they may be.
    assert all(keys[job.job_id] in job_keys(TENANT, job.job_id) for job in hot)


@given(records)
def test_a_record_that_is_due_goes_where_its_kind_is_read(record: Record) -> None:
    routes = Routes(NAMES.get, monotonic=still)
    is_job = record.kind is RecordKind.JOB
    expected = topics.job_topic(NAMES[record.queue_id], record.priority) if is_job else topics.DELIVERIES_RETRY.name

    assert routes.topic_when_due(record) == expected
    assert routes.key_when_due(record) == tenant_key(record.tenant_id)
