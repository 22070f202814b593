"""JSON from strangers: what is refused, where, and that the quick look agrees with the slow one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.contract.json_text import DEPTH_MAX, check, escape_pointer, malformed, may_be_deeper
from barnabas.contract.problems import ProblemError

_TEXT = st.text(st.one_of(st.characters(), st.sampled_from('\\"u0dDcC\0{}[]\ud800\udbff\udc00\udfff')), max_size=20)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
    max_leaves=20,
)


def _refusal(text: bytes) -> tuple[str, str] | None:
    try:
        check(text)
    except ProblemError as error:
        return error.problem.code, error.problem.errors[0].pointer
    return None


def _is_bad(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value or any("\ud800" <= each <= "\udfff" for each in value)
    if isinstance(value, dict):
        return any(_is_bad(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(_is_bad(each) for each in value)


def _escaped(value: Any) -> bytes:
    # Half pairs side by side become whole pairs when they are read again.
    return json.dumps(value, ensure_ascii=True).encode()


@given(_VALUES)
def test_escaped_text_is_refused_exactly_when_it_holds_nul_or_half_a_pair(value: Any) -> None:
    text = _escaped(value)

    assert (_refusal(text) is not None) == _is_bad(json.loads(text))


@given(st.integers(1, 200), st.integers(0, 5), st.booleans())
def test_depth_is_counted_outside_of_strings_only(depth: int, width: int, objects: bool) -> None:
    begin, end = (b'{"[{":', b"}") if objects else (b"[", b"]")
    text = begin * depth + b'"' + b"[{" * width + b'\\""' + end * depth

    assert (_refusal(text) is not None) == (depth > DEPTH_MAX)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@given(_VALUES, st.lists(st.booleans(), min_size=DEPTH_MAX - 8, max_size=DEPTH_MAX + 4), st.integers(0, 40))
def test_depth_is_counted_in_the_midst_of_what_is_wide(inner: Any, objects: list[bool], width: int) -> None:
    value = inner
    for is_object in objects:
        value = {"a": value, "b": [{}] * width} if is_object else [[[]] * width, value, "]}"]

    text = _escaped(value)

    # What inner texts hold may be refused too.
    assert (_refusal(text) is not None) == (_depth(value) > DEPTH_MAX or _is_bad(json.loads(text)))


@given(st.lists(st.lists(st.integers(), max_size=3), max_size=200))
def test_width_is_not_depth(value: list[list[int]]) -> None:
    assert _refusal(json.dumps(value).encode()) is None


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (b'"\\\\u0000"', None),
        (b'"\\\\\\u0000"', ("validation_failed", "")),
        (b'"\\ud83d\\ude00"', None),
        (b'"\\ud83d\\\\\\ude00"', ("validation_failed", "")),
        (b'"\\ud83d\\ud83d\\ude00"', ("validation_failed", "")),
        (b'"\\uD83D\\uDE00\\uDE00"', ("validation_failed", "")),
        (b'{"a":{"b/~":["x","\\udfff"]}}', ("validation_failed", "/a/b~1~0/1")),
        (b'"\xf0\x9f\x98\x80"', None),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', ("malformed_json", "")),
    ],
)
def test_escapes_are_read_as_json_reads_them(text: bytes, refusal: tuple[str, str] | None) -> None:
    assert _refusal(text) == refusal


@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"x" * 50]), max_size=200), st.integers(1, 70))
def test_text_with_few_brackets_is_never_deep_and_any_other_is_looked_at(parts: list[bytes], depth_max: int) -> None:
    text = b"".join(parts)
    opening = text.count(b"[") + text.count(b"{")

    # Both ways of counting, the search and the count, give the same answer.
    assert may_be_deeper(text, depth_max) == (opening > depth_max)


def test_the_pointer_of_what_is_too_deep_names_its_place() -> None:
    text = b'{"payload":' + b'{"a":[' * 32 + b"]}" * 32 + b"}"

    assert _refusal(text) == ("validation_failed", "/payload" + "/a/0" * 31 + "/a")


def test_nan_is_malformed_at_its_place() -> None:
    problem = malformed(b'{"a":[0,{"b":NaN}]}', "why").problem

    assert (problem.code, problem.errors[0].pointer) == ("malformed_json", "/a/1/b")


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 1_000_000, b"\xff"])
def test_what_is_no_json_at_all_is_malformed_at_the_root(text: bytes) -> None:
    problem = malformed(text, "why").problem

    assert (problem.code, problem.detail, problem.errors[0].pointer) == ("malformed_json", "why", "")


@given(_TEXT)
def test_a_pointers_step_is_always_text(name: str) -> None:
    step = escape_pointer(name)

    assert step.encode().decode() == step
    assert "/" not in step
