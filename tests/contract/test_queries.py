"""Queries and migrations: named, documented, used, and called with as many arguments as they take."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.contract.sources import ROOT, Module, modules

_POSTGRES = ROOT / "shared/src/barnabas/postgres"
_MIGRATIONS = sorted((_POSTGRES / "migrations").glob("*.sql"))
_QUERIES = {path.stem: path.read_text() for path in sorted((_POSTGRES / "sql").glob("*.sql"))}

_CALLS = {"fetch", "fetchrow", "fetchval", "execute"}
_PLACE = re.compile(r"\$(\d+)")
_INDEX = re.compile(r"^CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
_COMMENT = re.compile(r"^COMMENT ON INDEX (\w+) IS '((?:[^']|'')*)'", re.MULTILINE)
_DROPPED = re.compile(r"^DROP INDEX (?:IF EXISTS )?(\w+)", re.MULTILINE)
_FUNCTION = re.compile(r"^CREATE (?:OR REPLACE )?FUNCTION (\w+)", re.MULTILINE)

queries = pytest.mark.parametrize("name", _QUERIES)


def header_of(text: str) -> str:
    """The comment lines before the statement."""
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return "\n".join(lines[:end])


def body_of(text: str) -> str:
    """The statement without its comments."""
    return re.sub(r"--[^\n]*", "", text)


@cache
def uses() -> dict[str, set[str]]:
    """Where each query's name stands as a string."""
    found: dict[str, set[str]] = {}
    for module in modules():
        for line, text in module.strings:
            if text in _QUERIES:
                found.setdefault(text, set()).add(f"{module.shown}:{line}")
    return found


def calls(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Calls of a session or database with a query's name spelled out."""
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _CALLS
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
            and re.fullmatch(r"[a-z0-9_]+", node.args[0].value)
        ):
            yield node.args[0].value, node


@queries
def test_a_query_says_what_it_does(name: str) -> None:
    assert re.match(rf"-- {name}: \S", _QUERIES[name]), f"the first line has to begin with `-- {name}: `"


@queries
def test_a_query_documents_each_of_its_parameters(name: str) -> None:
    used = set(_PLACE.findall(body_of(_QUERIES[name])))
    documented = set(_PLACE.findall(header_of(_QUERIES[name])))

    assert documented == used
    assert used == {str(number + 1) for number in range(len(used))}, "numbers without a gap"


@queries
def test_a_query_is_used(name: str) -> None:
    assert uses().get(name), "nobody asks it: delete it"


def test_every_query_that_is_asked_exists() -> None:
    missing = [
        f"{module.shown}:{call.lineno}: {name}"
        for module in modules()
        for name, call in calls(module)
        if name not in _QUERIES
    ]

    assert missing == []


def test_every_call_hands_over_as_many_arguments_as_its_query_takes() -> None:
    wrong = []
    counted = 0
    for module in modules():
        for name, call in calls(module):
            if name not in _QUERIES or any(isinstance(each, ast.Starred) for each in call.args):
                continue
            counted += 1
            takes = len(set(_PLACE.findall(body_of(_QUERIES[name]))))
            if len(call.args) - 1 != takes:
                wrong.append(f"{module.shown}:{call.lineno}: {name} takes {takes}, gets {len(call.args) - 1}")

    assert wrong == []
    assert counted > 50, "the calls look different now, and this test sees none of them"


@queries
def test_a_query_names_its_columns(name: str) -> None:
    # A function's own result, a function's row and a CTE's have their columns named elsewhere in sight.
    tables = r"(?:ONLY\s+)?(?:jobs|job_\w+|timers|gates|waiting|outbox|workers|lease_batches|endpoints|deliveries)\b"

    assert not re.search(rf"SELECT\s+\*\s+FROM\s+{tables}(?!\w*\s*\()", body_of(_QUERIES[name]))


@pytest.mark.parametrize("path", _MIGRATIONS, ids=lambda path: path.stem)
def test_a_migration_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith(f"-- {path.stem}: ")


def test_migrations_are_numbered_upwards_without_a_pair() -> None:
    numbers = [path.name[:4] for path in _MIGRATIONS]

    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", path.name) for path in _MIGRATIONS)
    assert numbers == sorted(set(numbers))


def test_every_index_names_the_query_that_needs_it() -> None:
    text = "\n".join(path.read_text() for path in _MIGRATIONS)
    comments = dict(_COMMENT.findall(text))
    known = _QUERIES.keys() | set(_FUNCTION.findall(text))

    complaints = []
    for index in set(_INDEX.findall(text)) - set(_DROPPED.findall(text)):
        named = [each.strip() for each in comments.get(index, "").split(":")[0].split(",")]
        if not set(named) <= known:
            complaints.append(f"{index}: {comments.get(index, 'has no comment')!r} names {named}")

    assert complaints == []


def test_functions_carry_their_version_in_their_names() -> None:
    names = _FUNCTION.findall("\n".join(path.read_text() for path in _MIGRATIONS))

    assert names
    assert [name for name in names if not re.search(r"_v\d+$", name)] == []


def test_the_functions_that_queries_call_exist() -> None:
    made = set(_FUNCTION.findall("\n".join(path.read_text() for path in _MIGRATIONS)))
    called = {name for text in _QUERIES.values() for name in re.findall(r"\b(\w+_v\d+)\s*\(", body_of(text))}

    assert called <= made
