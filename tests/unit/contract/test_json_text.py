"""JSON from strangers: what is refused, where, and that the quick look agrees with the slow one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.contract.json_text import DEPTH_MAX, check, escape_pointer, malformed
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
