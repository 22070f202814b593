"""One body of a job: read, judged, compared."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.contract.intake import (
    AHEAD_SECONDS_MAX,
    BODY_BYTES_MAX,
    JobInput,
    decode,
    decode_job,
    fingerprint,
    invalid,
    read_idempotency_key,
    read_job,
    read_priority,
)
from barnabas.contract.problems import ProblemError, encode_problem

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé\n"'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé", max_size=4), inner, max_size=4),
    max_leaves=10,
)


def body(payload: Any = None, **fields: Any) -> bytes:
    return json.dumps({"type": "echo", "payload": payload, **fields}).encode()


def refusal(text: bytes) -> tuple[str, str]:
    with pytest.raises(ProblemError) as raised:
        read_job(text)
    return raised.value.problem.code, raised.value.problem.errors[0].pointer


@given(_JSON)
def test_a_payload_is_kept_as_the_bytes_that_came(payload: Any) -> None:
    for text in (json.dumps(payload), json.dumps(payload, ensure_ascii=False, indent=1)):
        given_body = f'{{"payload" : {text} , "type":"echo"}}'.encode()

        assert read_job(given_body).payload == text.encode()


def test_what_is_left_out_has_its_default() -> None:
    job = read_job(body())

    assert (job.priority, job.run_at, job.timeout_ms, job.max_attempts) == (1, None, None, None)
    assert (job.metadata, job.retry, job.idempotency_key) == (None, None, None)
    assert job.due_at(NOW) is None


def test_null_means_left_out() -> None:
    names = ("priority", "queue", "run_at", "delay_seconds", "max_attempts", "timeout_seconds", "retry", "metadata")
    more = ("idempotency_key", "depends_on", "ordering_key", "unique_key")

    assert read_job(body(1, **dict.fromkeys(names + more))) == read_job(body(1))


def test_the_default_queue_is_none_and_any_other_is_kept_by_name() -> None:
    queues = [read_job(body(queue=name)).queue for name in ("default", "gpu-2", "x" * 32)]

    assert queues == [None, "gpu-2", "x" * 32]


def test_an_ordering_key_is_any_text_of_up_to_two_hundred_characters() -> None:
    keys = ["a", " ", "Kunde ä 7", "\U0001f600" * 200]

    assert [read_job(body(ordering_key=key)).ordering_key for key in keys] == keys


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.0001, 1), (0.5, 500), (1, 1_000), (86_400, 86_400_000)])
def test_a_timeout_is_whole_milliseconds_and_never_none(seconds: float, milliseconds: int) -> None:
    assert read_job(body(timeout_seconds=seconds)).timeout_ms == milliseconds


def test_a_retry_policy_is_stored_whole() -> None:
    stored = read_job(body(retry={"base_seconds": 1, "jitter": "full"})).retry

    assert json.loads(stored or b"") == {"base_seconds": 1.0, "factor": 2.0, "cap_seconds": 3600.0, "jitter": "full"}


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({"delay_seconds": 0}, None),
        ({"delay_seconds": 1.5}, NOW + timedelta(seconds=1.5)),
        ({"run_at": "2026-06-01T00:00:00Z"}, None),
        ({"run_at": "2026-06-01T02:00:01+02:00"}, NOW + timedelta(seconds=1)),
        ({"run_at": "2026-05-01T00:00:00Z"}, None),
    ],
)
def test_due_times(fields: dict[str, Any], due: datetime | None) -> None:
    assert read_job(body(**fields)).due_at(NOW) == due


def test_a_time_too_far_ahead_is_refused_by_the_clock_of_the_reader() -> None:
    at = NOW + timedelta(seconds=AHEAD_SECONDS_MAX + 1)
    job = read_job(body(run_at=at.isoformat()))

    with pytest.raises(ProblemError):
        job.due_at(NOW)
    assert job.due_at(NOW + timedelta(seconds=1)) == at


@pytest.mark.parametrize("value", ["low", "medium", "high", "critical"])
def test_priorities_have_names_and_numbers(value: str) -> None:
    number = ("low", "medium", "high", "critical").index(value)

    assert read_priority(value) == read_priority(number) == read_job(body(priority=value)).priority == number


@pytest.mark.parametrize("value", [-1, 4, "", "HIGH", "1"])
def test_other_priorities_are_refused(value: int | str) -> None:
    assert refusal(body(priority=value)) == ("validation_failed", "/priority")


def test_a_body_is_measured_before_it_is_read() -> None:
    text = body("x" * (BODY_BYTES_MAX - len(body(""))))

    assert read_job(text).type == "echo"
    with pytest.raises(ProblemError, match="at most") as raised:
        read_job(text + b" ")
    assert raised.value.problem.code == "too_large"


@given(st.dictionaries(st.text("abc", max_size=3), _JSON, max_size=5), st.randoms())
def test_equal_submissions_have_one_fingerprint_however_written(payload: dict[str, Any], random: Any) -> None:
    fields = [("type", "echo"), ("payload", payload), ("priority", 2), ("metadata", None), ("idempotency_key", "k")]
    random.shuffle(fields)
    shuffled = json.dumps(dict(fields), indent=random.choice([None, 2]), ensure_ascii=random.random() < 0.5).encode()

    assert fingerprint(shuffled) == fingerprint(body(payload, priority=2))


@given(_JSON, _JSON)
def test_another_submission_has_another_fingerprint(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (fingerprint(body(one)) == fingerprint(body(other))) == same


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 4_301, "9" * 400 + ".5"])
def test_what_no_fingerprint_can_be_made_of_is_refused_at_its_place(number: str) -> None:
    text = f'{{"type":"echo","payload":{{"x":[1,{number}]}}}}'.encode()

    assert read_job(text).payload == text[len('{"type":"echo","payload":') : -1]
    with pytest.raises(ProblemError) as raised:
        fingerprint(text)
    problem = raised.value.problem
    assert (problem.code, problem.errors[0].pointer) == ("validation_failed", "/payload")


@pytest.mark.parametrize("number", ["9" * 4_300, "-" + "9" * 4_299, "1e308", "1e-999"])
def test_the_largest_numbers_have_a_fingerprint(number: str) -> None:
    assert len(fingerprint(f'{{"type":"echo","payload":{number}}}'.encode())) == 32


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"echo","payload":1,"%b":1}',
        b'{"type":"echo","payload":1,"priority":"%b"}',
        b'{"type":"echo","payload":{"%b":NaN}}',
        b'{"type":"echo","payload":1,"retry":{"%b":1}}',
    ],
)
def test_a_problem_is_short_whatever_it_repeats(text: bytes) -> None:
    with pytest.raises(ProblemError) as raised:
        read_job(text % (b"x" * 750_000))

    assert len(encode_problem(raised.value.problem)) < 1_500


@pytest.mark.parametrize("key", ["", "x" * 256, "a\n", "é", "\x7f"])
def test_a_malformed_idempotency_key_is_refused(key: str) -> None:
    with pytest.raises(ProblemError):
        read_idempotency_key(key, pointer="Idempotency-Key")
    assert refusal(body(idempotency_key=key)) == ("validation_failed", "/idempotency_key")


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ("Expected `int`, got `str` - at `$.retry.factor`", "/retry/factor"),
        ("Expected `str`, got `int` - at `$.ids[3]`", "/ids/3"),
        ("Object contains unknown field `a/b` - at `$.retry`", "/retry/a~1b"),
        ("Object missing required field `type`", "/type"),
        ("Expected `object`, got `array`", ""),
    ],
)
def test_a_decoders_path_becomes_a_pointer(message: str, pointer: str) -> None:
    assert invalid(message).problem.errors[0].pointer == pointer


@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_a_problem(text: bytes) -> None:
    with suppress(ProblemError):
        read_job(text)


_FIELDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["echo", "a.b/c:d-1", "", "-x", "x\n", "x" * 128, "x" * 129, "é"]) | st.integers()},
    optional={
        "payload": _JSON,
        "priority": st.sampled_from(["low", "medium", "critical", "LOW", "", 0, 3, 4, -1, True, 1.0, 1.5, None]),
        "queue": st.sampled_from(["default", "gpu-2", "GPU", "", None]),
        "delay_seconds": st.sampled_from([0, 1.5, -1, "1", None]),
        "max_attempts": st.sampled_from([0, 1, 101, None]),
        "metadata": _JSON,
        "depends_on": st.sampled_from([None, []]),
        "idempotency_key": st.sampled_from(["k", "", "é", None]),
        "unknown": st.none(),
    },
)


def _mutated(text: bytes, mutations: list[tuple[int, bytes]]) -> bytes:
    for at, put in mutations:
        at %= len(text) + 1
        text = text[:at] + put + text[at + 1 :]
    return text


def _verdict(step: Callable[[bytes], Any], text: bytes) -> Any:
    try:
        return step(text)
    except ProblemError as error:
        return error.problem


@given(
    _FIELDS,
    st.lists(
        st.tuples(st.integers(0, 500), st.sampled_from([b"", b"{", b'"', b",", b"\\", b"\xff", b"NaN"])), max_size=2
    ),
)
def test_the_quick_decoder_and_the_exact_one_give_the_same_verdict(
    fields: dict[str, Any], mutations: list[tuple[int, bytes]]
) -> None:
    text = _mutated(json.dumps(fields).encode(), mutations)

    quick = _verdict(decode_job, text)
    exact = _verdict(partial(decode, msgspec.json.Decoder(JobInput)), text)

    if isinstance(exact, JobInput):
        assert isinstance(quick, JobInput)
        assert [getattr(quick, name) for name in JobInput.__struct_fields__] == [
            getattr(exact, name) for name in JobInput.__struct_fields__
        ]
    else:
        assert quick == exact
