"""Errors and problems: stable codes, one meaning each, and a sentence for whoever meets them."""

import ast
import re
from collections import Counter

import pytest

from barnabas.contract.problems import KINDS, TYPE_PREFIX, problem, problem_of
from barnabas.errors import BarnabasError, RejectedError, SupersededError, TransientError
from barnabas.generate.errors_page import error_classes
from tests.contract.sources import modules

_CLASSES = error_classes()
_SNAKE = r"[a-z]+(_[a-z]+)*"
every_class = pytest.mark.parametrize("error", _CLASSES, ids=lambda error: error.__name__)
every_problem = pytest.mark.parametrize("code", KINDS)


@every_class
def test_an_error_has_a_code_and_a_message_of_its_own(error: type[BarnabasError]) -> None:
    assert re.fullmatch(_SNAKE, error.code)
    assert error.__doc__
    assert error.__doc__ != BarnabasError.__doc__


def test_a_code_belongs_to_one_error() -> None:
    codes = Counter(error.code for error in _CLASSES if "code" in vars(error))
    # The client raises again, on the other side of HTTP, what ingest raised.
    del codes["problem"]

    assert [code for code, count in codes.items() if count > 1] == []


def test_an_error_says_what_its_caller_should_do_by_one_kind_only() -> None:
    kinds = (TransientError, RejectedError, SupersededError)

    assert [error for error in _CLASSES if sum(issubclass(error, kind) for kind in kinds) > 1] == []


@every_problem
def test_a_problem_is_complete(code: str) -> None:
    made = problem(code)

    assert re.fullmatch(_SNAKE, code)
    assert made.type == TYPE_PREFIX + code
    assert made.title
    assert made.detail
    assert not made.title.endswith(".")
    assert 400 <= made.status < 600


@every_problem
def test_a_server_problem_may_be_retried_and_a_callers_mistake_may_not(code: str) -> None:
    kind = KINDS[code]
    # The caller was too slow, or too fast: the same request may do another time.
    expected = kind.status >= 500 or kind.status in {408, 429}

    assert kind.retryable == expected


def test_every_problem_that_the_code_names_is_in_the_table() -> None:
    named = {
        (f"{module.shown}:{node.lineno}", node.args[0].value)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"problem", "refused"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }

    assert len(named) > 20, "the calls look different now, and this test sees none of them"
    assert {(where, code) for where, code in named if code not in KINDS} == set()


@pytest.mark.parametrize(
    "error", [error for error in _CLASSES if issubclass(error, TransientError)], ids=lambda error: error.__name__
)
def test_a_transient_error_of_ours_never_tells_a_caller_to_give_up(error: type[BarnabasError]) -> None:
    # Built without its own constructor: only class and code count here.
    made = error.__new__(error)
    Exception.__init__(made, "…")
    answered = KINDS[made.code] if made.code in KINDS else KINDS[problem_of(made).code]

    assert answered.retryable
