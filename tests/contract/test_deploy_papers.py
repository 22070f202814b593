"""What runbooks and the operators' manual name exists: settings, log lines, alerts, files, services, panels."""

import json
import re
from pathlib import Path

import pytest
import yaml

from barnabas.runtime.settings import keys_of, known_keys
from barnabas_ingest.settings import IngestSettings
from barnabas_notifier.settings import NotifierSettings
from barnabas_retry_scheduler.settings import RetrySchedulerSettings
from barnabas_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs/operations.md"
RUNBOOKS = sorted((ROOT / "deploy/runbooks").glob("*.md"))
PAPERS = [MANUAL, *RUNBOOKS]
SETTINGS = (IngestSettings, NotifierSettings, RetrySchedulerSettings, WorkerSettings)
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("shared", "services")
    for path in (ROOT / folder).rglob("src/**/*.py")
)

each_paper = pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.stem)
each_runbook = pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda path: path.stem)


@each_paper
def test_a_setting_that_is_named_exists(paper: Path) -> None:
    named = set(re.findall(r"\bBARNABAS_[A-Z_]*[A-Z]\b", paper.read_text(encoding="utf-8"))) - {"BARNABAS_X"}
    known = known_keys().union(*(keys_of(each).keys() for each in SETTINGS))

    assert named <= known


def test_the_defaults_in_the_manual_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(BARNABAS_\w+)` \| ([^|]+) \|", MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
    fields = {key: field for each in SETTINGS for key, field in keys_of(each).items()}

    assert len(rows) > 5
    for key, shown in rows:
        default = fields[key].default
        if shown.endswith(" MiB"):
            assert default == int(shown.removesuffix(" MiB")) * 1024 * 1024
        elif isinstance(default, tuple):
            assert ",".join(default) == shown
        elif isinstance(default, bool | str):
            assert str(default).lower() == shown
        else:
            assert float(default) == float(shown)


@each_runbook
def test_a_log_line_that_is_named_is_written_somewhere(runbook: Path) -> None:
    text = " ".join(runbook.read_text(encoding="utf-8").split())
    named = {
        name
        for phrase in re.findall(r"log lines? ((?:`\w+`(?:, | and )?)+)", text)
        for name in re.findall(r"`(\w+)`", phrase)
    }

    assert {name for name in named if f'"{name}"' not in CODE} == set()


@each_runbook
def test_a_panel_that_is_named_is_on_the_dashboard(runbook: Path) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/barnabas.json").read_text(encoding="utf-8"))
    titles = {panel["title"] for panel in dashboard["panels"]}
    # Commands are full of quotation marks of their own.
    text = re.sub(r"`[^`]*`", "", runbook.read_text(encoding="utf-8"))

    assert set(re.findall(r'"([A-Z][^"]+)"', text)) <= titles


@each_paper
def test_an_alert_and_a_file_that_are_named_exist(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    alerts = {path.stem for path in RUNBOOKS}

    assert set(re.findall(r"see ([A-Z]\w+[a-z][A-Z]\w+)", text)) <= alerts
    for name in re.findall(r"`((?:deploy|tests)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_manual_knows_the_services_and_volumes_of_the_stack() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    scaled = set(re.findall(r"--scale (\S+)=\d", text))
    volumes = set(re.findall(rf"docker volume rm {compose['name']}_(\S+)", text))

    assert scaled
    assert scaled <= compose["services"].keys()
    assert volumes == {"kafka-data"}
    assert volumes <= compose["volumes"].keys()
    for name in ("engine-login", "api-login"):
        assert f"`{name}`" in text
        assert name in compose["volumes"]
