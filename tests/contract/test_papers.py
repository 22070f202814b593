"""What the papers say exists: links, files, targets, commands, settings, metrics, and the handler of the README."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from barnabas.cli.main import app as command_line
from barnabas.contract import topics
from barnabas.runtime.metrics import CATALOGUE
from barnabas.runtime.settings import known_keys
from barnabas.sdk.testing import run
from tests.contract.sources import ROOT

PAPERS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
    if "node_modules" not in path.parts
)
every_paper = pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.relative_to(ROOT).as_posix())

_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_FILE = re.compile(r"`((?:shared|services|deploy|tests|docs|examples)/[\w./-]+\.\w+)`")
_TARGET = re.compile(r"\bmake ([a-z]+)\b(?=[`\s/\"]|$)")
_KEY = re.compile(r"\bBARNABAS_[A-Z_]*[A-Z]\b")
_METRIC = re.compile(r"\bbarnabas_[a-z_]+_(?:total|seconds|bytes|rows|records|jobs)\b")
_COMMAND = re.compile(r"(?:\.venv/bin/|`|^)barnabas ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.MULTILINE)
_TOPIC = re.compile(r"`(barnabas\.(?:intake|jobs|retries|delay|results|deliveries)[\w.]*)`")


def code_of(text: str) -> str:
    """What stands in code: only there `make test` is a command."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def blocks(paper: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", paper.read_text(), re.DOTALL)


@every_paper
def test_every_link_leads_somewhere(paper: Path) -> None:
    links = [link for link in _LINK.findall(paper.read_text()) if not link.startswith(("http://", "https://"))]

    assert [link for link in links if not (paper.parent / link).exists()] == []


@every_paper
def test_every_file_that_is_named_exists(paper: Path) -> None:
    named = set(_FILE.findall(paper.read_text()))

    assert {name for name in named if not (ROOT / name).exists()} == set()


@every_paper
def test_every_make_target_that_is_named_exists(paper: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(_TARGET.findall(code_of(paper.read_text()))) <= targets


@every_paper
def test_every_setting_that_is_named_exists(paper: Path) -> None:
    # X stands for any setting.
    assert set(_KEY.findall(paper.read_text())) <= known_keys() | {"BARNABAS_X"}


@every_paper
def test_every_metric_that_is_named_exists(paper: Path) -> None:
    exported = {name for metric in CATALOGUE for name in (metric.name, *metric.sample_names)}

    assert set(_METRIC.findall(paper.read_text())) <= exported


@every_paper
def test_every_topic_that_is_named_exists(paper: Path) -> None:
    assert {name.rstrip(".") for name in _TOPIC.findall(paper.read_text())} <= topics.BY_NAME.keys()


@every_paper
def test_every_command_that_is_named_exists(paper: Path) -> None:
    groups: Any = typer.main.get_command(command_line)
    missing = []
    for command, inner in _COMMAND.findall(code_of(paper.read_text())):
        found = groups.commands.get(command)
        # The word behind a command that has no commands below it is its argument.
        if found is None or (inner and hasattr(found, "commands") and inner not in found.commands):
            missing.append(f"barnabas {command} {inner}".strip())

    assert missing == []


@every_paper
def test_python_in_a_paper_compiles(paper: Path) -> None:
    for block in blocks(paper, "python"):
        compile(block, paper.name, "exec")


def test_the_handler_of_the_readme_runs() -> None:
    names: dict[str, Any] = {}
    # Pydantic looks the annotations up in the module that a class says it is from.
    exec(compile(blocks(ROOT / "README.md", "python")[0], "README.md", "exec"), {"__name__": "readme"}, names)

    assert run(names["app"], "scoring", {"income": 4200, "debts": 900}).value == {"points": 82}
