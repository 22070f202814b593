"""What is generated is checked in and current."""

from pathlib import Path

import pytest

from barnabas.domain.jobs import JobState
from barnabas.generate.__main__ import compare, main
from barnabas.generate.attribute_docs import attribute_docs
from barnabas.generate.database_schema import dump_schema
from barnabas.generate.documents import DATABASE_SCHEMA, DOCUMENTS, Document, repository
from barnabas.generate.markdown import table
from barnabas_local.database import Logins
from tests.contract.sources import ROOT

_WITHOUT_SERVER = [document for document in DOCUMENTS if document is not DATABASE_SCHEMA]
_STALE = "not current: run `make generate`"


@pytest.mark.parametrize("document", _WITHOUT_SERVER, ids=lambda document: document.path)
def test_the_checked_in_file_is_current(document: Document) -> None:
    assert compare(document, ROOT) == "", _STALE


async def test_the_checked_in_schema_is_what_the_migrations_make(database: Logins) -> None:
    made = Document(DATABASE_SCHEMA.path, lambda: dump_schema(database.owner_dsn))

    assert compare(made, ROOT) == "", _STALE


def test_the_schema_says_nothing_of_the_day_it_was_made_on() -> None:
    text = (ROOT / DATABASE_SCHEMA.path).read_text()

    assert "_20" not in text
    assert "CREATE TABLE public.jobs (" in text
    assert "FORCE ROW LEVEL SECURITY" in text


def test_generated_pages_say_so() -> None:
    pages = [document for document in DOCUMENTS if document.path.endswith(".md")]

    assert pages
    assert all("make generate" in document.text() for document in pages)


def test_this_is_the_repository() -> None:
    assert repository() == ROOT


def test_a_stale_file_is_shown_as_a_diff_and_a_missing_one_as_new(tmp_path: Path) -> None:
    document = Document("page.md", lambda: "one\ntwo\n")

    assert "+one\n+two\n" in compare(document, tmp_path)
    (tmp_path / "page.md").write_text("one\n2\n")
    assert "-2\n+two\n" in compare(document, tmp_path)
    (tmp_path / "page.md").write_text("one\ntwo\n")
    assert compare(document, tmp_path) == ""


def test_the_check_changes_nothing_and_fails_on_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("barnabas.generate.__main__.repository", lambda: tmp_path)
    only = ["--only", "metrics.md"]

    assert main(["--check", *only]) == 1
    assert "+# Metrics" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert main(only) == 0
    assert main(["--check", *only]) == 0
    assert (tmp_path / "docs/reference/metrics.md").read_text().startswith("# Metrics\n")


def test_the_meaning_of_each_state_is_found_in_the_source() -> None:
    assert attribute_docs(JobState).keys() == JobState.__members__.keys()


def test_a_cell_can_not_break_its_table() -> None:
    assert table(("a",), [("x | y\nz",)]) == "| a |\n| --- |\n| x \\| y z |"
