"""Dashboards: every query names what processes export, every panel says what it shows and in which unit."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from barnabas.runtime import metrics
from tests.contract import promql
from tests.contract.test_alerts import RECORDED

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy/grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
# What a dashboard's file may take its data from: the variable at its top.
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


PANELS = [pytest.param(panel, id=panel["title"]) for path in DASHBOARDS for panel in _panels(_load(path))]
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}")
    for path in DASHBOARDS
    for panel in _panels(_load(path))
    for target in panel["targets"]
]

EXPRESSIONS = [target["expr"] for path in DASHBOARDS for panel in _panels(_load(path)) for target in panel["targets"]]


def _plain(expression: str) -> str:
    """The query as Prometheus gets it, variables filled in."""
    return expression.replace("$__rate_interval", "1m").replace("$service", "worker")


@pytest.mark.parametrize("target", TARGETS)
def test_every_metric_and_label_of_a_query_is_exported(target: dict[str, Any]) -> None:
    assert promql.mistakes(_plain(target["expr"]), RECORDED) == []


@pytest.mark.parametrize("target", TARGETS)
def test_a_legend_shows_only_labels_that_the_query_keeps(target: dict[str, Any]) -> None:
    query = promql.read(_plain(target["expr"]))
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    aggregated = re.search(r"\b(sum|max|histogram_quantile)\b", target["expr"])

    assert target["legendFormat"]
    assert shown <= (query.grouped_by - {"le"} if aggregated else promql.SCRAPE_LABELS)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_title_a_unit_and_says_what_bad_looks_like(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert len(panel["description"]) > 40
    assert panel["description"].endswith(".")
    assert panel["targets"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_reads_from_the_source_that_is_chosen_at_the_top(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == SOURCE
    assert all(target["datasource"] == SOURCE for target in panel["targets"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_provisioned(path: Path) -> None:
    dashboard = _load(path)
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    ids = [panel["id"] for panel in dashboard["panels"]]

    assert dashboard["uid"]
    assert dashboard["title"]
    # A number would tie the file to one Grafana's database.
    assert "id" not in dashboard
    assert variables["datasource"]["query"] == "prometheus"
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_lies_on_another(path: Path) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in _load(path)["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & own, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= own


def test_every_metric_of_the_catalogue_is_on_a_dashboard() -> None:
    shown = {
        selector.metric
        for path in DASHBOARDS
        for panel in _panels(_load(path))
        for target in panel["targets"]
        for selector in promql.read(_plain(target["expr"])).selectors
    }

    # Bytes say more about an inbox than the number of its records.
    missing = {each.name for each in metrics.CATALOGUE if not shown & set(each.sample_names)}
    assert missing <= {"barnabas_consumer_inbox_records"}


def test_promtool_can_parse_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    # As recording rules: every version of promtool can check those.
    rules = [{"record": f"query:{number}", "expr": _plain(expression)} for number, expression in enumerate(EXPRESSIONS)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")

    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=200, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_provisioning_points_at_what_compose_mounts() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/barnabas.yml").read_text(encoding="utf-8"))

    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./deploy/grafana/dashboards"] == provider["providers"][0]["options"]["path"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["providers"][0]["options"]["path"]
    assert (GRAFANA / "dashboards" / home.name).is_file()
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
