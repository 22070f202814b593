"""A stranger finds where a line belongs: no drawers, no long files, no SQL or clock where they don't belong."""

import ast
import re
from pathlib import Path

import pytest

from tests.contract.sources import FOLDERS, ROOT, Module, modules, python_files

_LINES_MAX = 400
# A test file is a list of sentences about one noun, and read one by one.
_TEST_LINES_MAX = 600
# By path, with the reason.
_LONGER: dict[str, str] = {}

_DRAWERS = ("util", "utils", "helper", "helpers", "common", "misc", "shared", "tools", "base", "core", "stuff")

# The words that begin a statement, as a whole phrase: prose says `select` and `update`, too.
_SQL = re.compile(
    r"\b(SELECT\s.*\bFROM\b|SELECT\s+\w+\(|INSERT\s+INTO\b|DELETE\s+FROM\b|UPDATE\s+\w+\s+SET\b"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|ROLE|DATABASE|FUNCTION|POLICY)\b|(GRANT|REVOKE)\s.*\bON\b|TRUNCATE\s)",
    re.DOTALL,
)
_SQL_IN_PYTHON = {
    "barnabas.postgres.migrate": "the table of applied migrations can't be made by one of them",
    "barnabas_local.database": "DDL takes no parameters, and what it names differs from call to call",
}

_IMPURE_MODULES = {"os", "random", "secrets", "socket", "asyncio", "threading", "subprocess", "logging", "uuid.uuid4"}
_IMPURE_CALLS = re.compile(
    r"\b(datetime\.(now|utcnow|today)|date\.today|time\.(time|monotonic|perf_counter|sleep)\w*|uuid[14]|open|print|input)$"
)


def test_no_file_is_long_without_a_reason() -> None:
    long = {
        path.relative_to(ROOT).as_posix()
        for path in python_files()
        if len(path.read_text().splitlines()) > (_TEST_LINES_MAX if ROOT / "tests" in path.parents else _LINES_MAX)
    }

    assert long - _LONGER.keys() == set(), f"over {_LINES_MAX} lines: look for the second noun"
    assert _LONGER.keys() - long == set(), "short again: their excuse can go"


def test_no_file_is_a_drawer() -> None:
    drawers = [
        path.relative_to(ROOT).as_posix()
        for folder in (*FOLDERS, ROOT / "tests")
        for path in folder.rglob("*")
        if path.stem.lower() in _DRAWERS and path.suffix in {".py", ""}
    ]

    assert drawers == []


def test_packages_have_empty_inits_but_for_the_one_that_people_import() -> None:
    filled = [
        path.relative_to(ROOT).as_posix()
        for path in python_files()
        if path.name == "__init__.py" and path.read_text().strip()
    ]

    assert filled == ["shared/src/barnabas/sdk/__init__.py"]


def test_every_module_says_what_it_is() -> None:
    silent = [
        module.shown
        for module in modules()
        if module.path.name != "__init__.py" and ast.get_docstring(module.tree) is None
    ]

    assert silent == []


def test_sql_is_written_in_sql_files_only() -> None:
    found = {
        f"{module.shown}:{line}"
        for module in modules()
        if module.name not in _SQL_IN_PYTHON
        for line, text in module.strings
        if _SQL.search(text)
    }

    assert found == set()


def test_the_excuses_for_sql_in_python_are_still_needed() -> None:
    written = {module.name for module in modules() if any(_SQL.search(text) for _, text in module.strings)}

    assert written == _SQL_IN_PYTHON.keys()


def test_nothing_names_a_place_of_one_machine() -> None:
    found = [
        f"{module.shown}:{line}: {text}"
        for module in modules()
        for line, text in module.strings
        if re.match(r"/(home|root|work|Users)/", text)
    ]

    assert found == []


def test_the_domain_reads_no_clock_no_chance_and_no_environment() -> None:
    found = [
        f"{module.shown}:{line}: {what}"
        for module in modules()
        if module.name.startswith("barnabas.domain.")
        for line, what in _impurities(module)
    ]

    assert found == []


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("SELECT 1 FROM jobs", True),
        ("SELECT pg_advisory_lock($1)", True),
        ("UPDATE jobs SET state = 2", True),
        ("DELETE FROM outbox", True),
        ("CREATE TABLE x (a integer)", True),
        ("GRANT SELECT ON jobs TO barnabas_api", True),
        ("select what you need from the list", False),
        ("an UPDATE of the row", False),
        ("drop a table", False),
    ],
)
def test_this_test_tells_sql_from_prose(text: str, is_sql: bool) -> None:
    assert bool(_SQL.search(text)) == is_sql


@pytest.mark.parametrize(
    "text",
    [
        "import random",
        "import os",
        "from os import environ",
        "from uuid import uuid4",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import date\ndate.today()",
        "import time\ntime.monotonic()",
        "open('x')",
    ],
)
def test_this_test_sees_what_is_impure(text: str) -> None:
    assert _impurities(Module("m", Path("m.py"), text)) != []


def _impurities(module: Module) -> list[tuple[int, str]]:
    imported = [
        (each.line, each.name)
        for each in module.imports
        if each.name.split(".")[0] in _IMPURE_MODULES or each.name in _IMPURE_MODULES
    ]
    called = [
        (node.lineno, ast.unparse(node.func))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _IMPURE_CALLS.search(ast.unparse(node.func))
    ]
    return imported + called
