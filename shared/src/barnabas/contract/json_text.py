"""JSON from strangers: what a parser accepts but a job may not hold.

Depth above 64, lone surrogates, NUL and bytes that aren't UTF-8 would come back to bite whoever reads it later.
A payload is kept as the bytes that came, so the text is judged, not a decoded value: a plain kilobyte costs 1 us.
What is refused is looked at again slowly, to name the place.
"""

import json
import math
import re
from typing import Any

from barnabas.contract.problems import ProblemError, refused

DEPTH_MAX = 64

# Opening brackets that are looked for one by one; a count takes as long as some ten searches.
_SEARCHED_MAX = 8
# Of nearly all JSON nothing is left by then.
_ROUNDS_MAX = 8

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")
# NUL, a high surrogate without its low one, a low one without its high one; escaped backslashes are gone by then.
_BAD_ESCAPE = re.compile(
    rb"\\u(?:0000|[dD](?:[89abAB](?!..\\u[dD][c-fC-F])|[c-fC-F](?<!\\u[dD][89abAB]..\\u[dD].)))", re.DOTALL
)


def check(text: bytes, *, depth_max: int = DEPTH_MAX) -> None:
    """Raise `ProblemError` for text that no job may hold; whether it is JSON at all is the decoder's business."""
    if may_be_deeper(text, depth_max) and _is_deeper(text, depth_max):
        raise refused("validation_failed", f"nested deeper than {DEPTH_MAX} levels", pointer=_too_deep(text, depth_max))
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise refused("malformed_json", f"not UTF-8 from byte {error.start} on", pointer="") from None
    # One character is found at once, two are searched for.
    if b"\\" in text and b"\\u" in text and _BAD_ESCAPE.search(text.replace(rb"\\", b"__")):
        raise _bad_text(text)


def malformed(text: bytes, reason: str) -> ProblemError:
    """The problem for text that the decoder refused, with the place where a value is no JSON (NaN, Infinity)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return refused("malformed_json", reason, pointer="")
    place = _find(value, lambda each: isinstance(each, float) and not math.isfinite(each))
    if place is None:
        return refused("malformed_json", reason, pointer="")
    return refused("malformed_json", "NaN and Infinity are not JSON", pointer=place)


def may_be_deeper(text: bytes, depth_max: int) -> bool:
    """Whether it has more opening brackets than that: without them there is no need to look where each stands."""
    # A search skips what a count looks at byte by byte: for the few brackets that most jobs have it takes a kilobyte in
    # 0.4 us instead of 0.9.
    found = 0
    for bracket in _OPENING:
        at = text.find(bracket)
        while at >= 0:
            found += 1
            if found > _SEARCHED_MAX:
                return text.count(b"{") + text.count(b"[") > depth_max
            at = text.find(bracket, at + 1)
    return found > depth_max


def _is_deeper(text: bytes, depth_max: int) -> bool:
    brackets = _STRING.sub(b"", text).translate(None, _NOT_BRACKETS)
    # Each round takes away the one or two innermost levels, all over the text at once: a kilobyte of short lists is
    # seen to be flat in 3 us, where it takes 8 to go through its brackets.
    rest = brackets
    for _ in range(min(_ROUNDS_MAX, depth_max // 2)):
        rest = rest.replace(b"[]", b"").replace(b"{}", b"")
        if not rest:
            return False
    depth = 0
    for bracket in brackets:
        if bracket in _OPENING:
            depth += 1
            if depth > depth_max:
                return True
        else:
            depth -= 1
    return False


def _too_deep(text: bytes, depth_max: int) -> str:
    try:
        return _find(json.loads(text), lambda _: False, depth_max=depth_max) or ""
    except (ValueError, RecursionError):
        return ""


def _bad_text(text: bytes) -> ProblemError:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return refused("malformed_json", "not JSON", pointer="")
    nul = _find(value, lambda each: isinstance(each, str) and "\0" in each)
    if nul is not None:
        return refused("validation_failed", "text may not hold NUL", pointer=nul)
    lone = _find(value, lambda each: isinstance(each, str) and any("\ud800" <= c <= "\udfff" for c in each))
    return refused("validation_failed", "text may not hold half of a surrogate pair", pointer=lone or "")


def _find(value: Any, is_bad: Any, *, depth_max: int | None = None) -> str | None:
    """The JSON pointer of the first bad value, or of the first that is nested too deep; a bad name counts as its
    value's place."""
    open_values: list[tuple[str, Any, int]] = [("", value, 1)]
    while open_values:
        pointer, each, depth = open_values.pop()
        if is_bad(each) or (depth_max is not None and isinstance(each, dict | list) and depth > depth_max):
            return pointer
        if isinstance(each, dict):
            for name, inner in reversed(each.items()):
                if is_bad(name):
                    return pointer
                open_values.append((f"{pointer}/{escape_pointer(name)}", inner, depth + 1))
        elif isinstance(each, list):
            open_values += [(f"{pointer}/{at}", inner, depth + 1) for at, inner in reversed(list(enumerate(each)))]
    return None


def escape_pointer(name: str) -> str:
    """One reference token of a JSON pointer (RFC 6901); what can't be shown as text is replaced."""
    return name.replace("~", "~0").replace("/", "~1").encode("utf-8", "replace").decode()
