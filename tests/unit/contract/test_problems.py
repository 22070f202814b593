"""Problems: one table, stable names."""

import json

import pytest

from barnabas.contract.problems import KINDS, encode_problem, problem, problem_of, refused
from barnabas.errors import BarnabasError, DatabaseUnavailableError, OverloadedError, RejectedError


@pytest.mark.parametrize("code", KINDS)
def test_every_code_makes_a_whole_document(code: str) -> None:
    document = json.loads(encode_problem(problem(code)))

    assert set(document) == {"type", "title", "status", "code", "detail", "retryable", "errors"}
    assert document["type"] == f"urn:barnabas:problem:{code}"
    assert document["detail"]
    assert 400 <= document["status"] < 600


def test_what_may_work_later_says_so() -> None:
    assert {code for code, kind in KINDS.items() if kind.status >= 500} <= {
        code for code, kind in KINDS.items() if kind.retryable
    }


def test_a_refusal_names_its_place() -> None:
    error = refused("validation_failed", "why", pointer="/a")

    assert problem_of(error) == error.problem
    assert [(each.pointer, each.detail) for each in error.problem.errors] == [("/a", "why")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatabaseUnavailableError("postgres://user:secret@host"), "database_unavailable"),
        (OverloadedError("why"), "overloaded"),
        (RejectedError("nobody's business"), "internal"),
        (BarnabasError("nobody's business"), "internal"),
    ],
)
def test_what_went_wrong_inside_is_not_told(error: BarnabasError, code: str) -> None:
    told = problem_of(error)

    assert told.code == code
    assert str(error) not in json.dumps(json.loads(encode_problem(told)))
