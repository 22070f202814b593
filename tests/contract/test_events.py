"""Events and webhooks as bytes: operators read the topics, tenants parse the bodies and check their signatures."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.contract import events
from barnabas.contract.deliveries import DeadDelivery
from barnabas.contract.events import JobEvent, decode_event, event_time, webhook_body
from barnabas.contract.jobs import JobProgress, JobView, encode, raw
from barnabas.domain.ids import uuid7_ms
from barnabas.domain.jobs import TERMINAL, JobState
from barnabas.errors import MalformedRecordError

TENANT = UUID("018bcfe5-6800-7000-8000-00000000000a")
JOB = UUID("018bcfe5-6800-7000-8000-00000000000b")
EVENT = UUID("018bcfe5-687b-7000-8000-00000000000d")
ENDPOINT = UUID("018bcfe5-6800-7000-8000-00000000000c")
AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

EVENT_JSON = (
    b'{"schema":1,"id":"018bcfe5-687b-7000-8000-00000000000d","type":"job.failed",'
    b'"tenant_id":"018bcfe5-6800-7000-8000-00000000000a","job_id":"018bcfe5-6800-7000-8000-00000000000b",'
    b'"job_type":"scoring","attempt":3,"fence":4,"reason":"attempts_exhausted"}'
)
WEBHOOK_JSON = (
    b'{"type":"job.succeeded","timestamp":"2023-11-14T22:13:20.123000Z","data":'
    b'{"id":"018bcfe5-6800-7000-8000-00000000000b","type":"scoring","status":"succeeded","priority":1,'
    b'"queue":"default","attempt":1,"max_attempts":3,"created_at":"2023-11-14T22:13:20Z",'
    b'"started_at":"2023-11-14T22:13:20Z","finished_at":"2023-11-14T22:13:20.123000Z","run_at":null,'
    b'"result":{"score": 1.50},"error":null,"metadata":{"case":"7"},"progress":null,"redrive_of":null,'
    b'"cancel_requested":false,"ordering_key":null}}'
)
DEAD_DELIVERY_JSON = (
    b'{"schema":1,"id":"018bcfe5-687b-7000-8000-00000000000d","tenant_id":"018bcfe5-6800-7000-8000-00000000000a",'
    b'"event_id":"018bcfe5-687b-7000-8000-00000000000d","endpoint_id":"018bcfe5-6800-7000-8000-00000000000c",'
    b'"job_id":"018bcfe5-6800-7000-8000-00000000000b","attempt":8,"reason":"attempts_exhausted",'
    b'"error":"the endpoint answered 503","last_status":503,"finished_at":"2023-11-14T22:13:20Z"}'
)


def event(**fields: Any) -> JobEvent:
    given: dict[str, Any] = {
        "id": EVENT, "type": "job.failed", "tenant_id": TENANT, "job_id": JOB, "job_type": "scoring", "attempt": 3,
        "fence": 4, "reason": "attempts_exhausted",
    }  # fmt: skip
    return JobEvent(**(given | fields))


def job(**fields: Any) -> JobView:
    given: dict[str, Any] = {
        "id": JOB, "type": "scoring", "status": "succeeded", "priority": 1, "queue": "default", "attempt": 1,
        "max_attempts": 3, "created_at": AT, "started_at": AT, "finished_at": event_time(EVENT), "run_at": None,
        "result": raw(b'{"score": 1.50}'), "error": raw(None), "metadata": raw(b'{"case":"7"}'),
    }  # fmt: skip
    return JobView(**(given | fields))


def test_these_bytes_are_this_event_for_ever() -> None:
    assert event().encode() == EVENT_JSON
    assert decode_event(EVENT_JSON) == event()


def test_a_webhooks_body_is_this_for_ever() -> None:
    # What the handler returned stands in it as it was stored: 1.50 is not 1.5 to whoever compares bytes.
    assert webhook_body(EVENT, "job.succeeded", job()) == WEBHOOK_JSON


def test_a_dead_delivery_is_told_like_this_for_ever() -> None:
    dead = DeadDelivery(
        id=EVENT, tenant_id=TENANT, event_id=EVENT, endpoint_id=ENDPOINT, job_id=JOB, attempt=8,
        reason="attempts_exhausted", error="the endpoint answered 503", last_status=503, finished_at=AT,
    )  # fmt: skip

    assert dead.encode() == DEAD_DELIVERY_JSON


def test_a_body_is_the_same_for_every_attempt_of_its_delivery() -> None:
    assert webhook_body(EVENT, "job.succeeded", job()) == webhook_body(EVENT, "job.succeeded", job())


def test_the_progress_of_a_running_job_is_shown() -> None:
    shown = json.loads(encode(job(status="running", progress=JobProgress(40.0, "page 4"))))

    assert shown["progress"] == {"percent": 40.0, "message": "page 4"}


def test_there_is_one_type_of_event_for_each_way_to_end() -> None:
    assert set(events.EVENT_TYPES) == {f"job.{state.label}" for state in TERMINAL}
    assert f"job.{JobState.FAILED.label}" == event().type


@given(st.integers(0, 2**47), st.integers(0, 2**74 - 1))
def test_an_events_time_is_in_its_id(unix_ms: int, chance: int) -> None:
    # Up to the year 6429; datetime ends at 9999.
    made = UUID(int=(unix_ms << 80) | (7 << 76) | (2 << 62) | (chance & (2**62 - 1)))

    assert round(event_time(made).timestamp() * 1000) == unix_ms == uuid7_ms(made)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"not json",
        EVENT_JSON[:-1],
        EVENT_JSON.replace(b'"schema":1', b'"schema":2'),
        EVENT_JSON.replace(b"job.failed", b"job.exploded"),
        EVENT_JSON.replace(b'"attempt":3', b'"attempt":"3"'),
        EVENT_JSON.replace(b"018bcfe5-6800-7000-8000-00000000000b", b"7"),
    ],
    ids=["tombstone", "empty", "bare", "text", "cut short", "newer", "unknown type", "wrong kind", "not an id"],
)
def test_what_is_no_event_is_refused(value: bytes | None) -> None:
    with pytest.raises(MalformedRecordError):
        decode_event(value)


def test_an_event_of_a_later_release_with_one_more_field_is_read() -> None:
    # The next release adds fields before every reader has been replaced.
    assert decode_event(EVENT_JSON[:-1] + b',"cost":1}') == event()


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_an_event_or_refused(value: bytes) -> None:
    with pytest.raises(MalformedRecordError):
        decode_event(value)


@pytest.mark.parametrize("name", ["job_event", "webhook", "dead_delivery"])
def test_what_is_sent_has_the_fields_that_its_schema_requires(name: str) -> None:
    schema = json.loads((Path(events.__file__).parent / "schemas" / f"{name}.json").read_text())
    sent = json.loads({"job_event": EVENT_JSON, "webhook": WEBHOOK_JSON, "dead_delivery": DEAD_DELIVERY_JSON}[name])
    definition = schema["$defs"][schema["$ref"].rsplit("/", 1)[-1]]

    assert set(definition["required"]) <= sent.keys() <= definition["properties"].keys()
    assert msgspec.json.encode(sent)
