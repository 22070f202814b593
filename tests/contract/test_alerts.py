"""Alert rules: what they name exists, each has a runbook, and promtool sees them fire and stay silent."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from barnabas.runtime import metrics
from tests.contract import promql

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RUNBOOKS = ROOT / "deploy/runbooks"

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED: dict[str, str] = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
TESTS: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]

# The first heading is the alert's name; a person who is woken up finds the same three under each.
HEADINGS = ("## What it means", "## What to look at", "## What to do")

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: str(rule["alert"]))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.get("alert") or rule.get("record")))
def test_every_metric_and_label_of_a_rule_is_exported(rule: dict[str, Any]) -> None:
    assert promql.mistakes(rule["expr"], RECORDED) == []


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("sum(rate(barnabas_attempt_total[5m]))", "nobody exports barnabas_attempt_total"),
        ("barnabas_attempts_total{result='x'}".replace("'", '"'), "barnabas_attempts_total has no label result"),
        ('barnabas_attempts_total{outcome="succeded"}', "barnabas_attempts_total: outcome is never succeded"),
        ('barnabas_jobs{state="waiting"}', "barnabas_jobs: state is never waiting"),
        ("sum by (tenant) (barnabas_jobs)", "grouped by tenant, which none of its metrics has"),
        ("barnabas_accept_seconds > 1", "nobody exports barnabas_accept_seconds"),
        ("vector(1)", "no metric in 'vector(1)'"),
        ("up == 1 unless barnabas_redy offset 5m", "nobody exports barnabas_redy"),
    ],
)
def test_a_rule_that_names_what_nobody_exports_is_found_out(expression: str, said: str) -> None:
    assert promql.mistakes(expression) == [said]


@each_alert
def test_an_alert_says_how_urgent_it_is_and_what_is_wrong(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["summary"].endswith(".")


@each_alert
def test_labels_that_a_description_shows_survive_the_expression(alert: dict[str, Any]) -> None:
    shown = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["description"]))
    query = promql.read(alert["expr"])
    if "by (" in alert["expr"]:
        kept = query.grouped_by - {"le"}
    else:
        kept = frozenset().union(*(promql.labels_of(each.metric, RECORDED) or () for each in query.selectors))
    assert shown <= kept


@each_alert
def test_every_alert_has_its_runbook(alert: dict[str, Any]) -> None:
    assert alert["annotations"]["runbook_url"] == f"deploy/runbooks/{alert['alert']}.md"
    text = (RUNBOOKS / f"{alert['alert']}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {alert['alert']}\n")
    assert tuple(re.findall(r"^## .*$", text, re.MULTILINE)) == HEADINGS


def test_every_runbook_has_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("runbook", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_names_only_metrics_that_exist(runbook: Path) -> None:
    named = set(re.findall(r"\bbarnabas_\w+", runbook.read_text(encoding="utf-8")))
    families = {metric.name for metric in metrics.CATALOGUE}
    samples = {name for metric in metrics.CATALOGUE for name in metric.sample_names}
    assert named <= families | samples


def test_each_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    fire: set[str] = set()
    silent: set[str] = set()
    for test in TESTS:
        for expected in test["alert_rule_test"]:
            (fire if expected["exp_alerts"] else silent).add(expected["alertname"])

    names = {alert["alert"] for alert in ALERTS}
    assert fire == names
    assert silent == names


def test_a_dead_letter_older_than_five_minutes_pages() -> None:
    alert = next(each for each in ALERTS if each["alert"] == "DeadLetterOlderThanFiveMinutes")

    assert alert["labels"]["severity"] == "critical"
    assert alert["expr"] == "max by (kind) (barnabas_dead_letter_oldest_seconds) > 300"
    assert "for" not in alert


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")

    done = subprocess.run(
        [promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=200, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
