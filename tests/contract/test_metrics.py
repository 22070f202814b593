"""The catalogue of metrics: units in the names, few labels with few values, and the same facts as the exposition."""

import re

import pytest
from prometheus_client import Counter, Gauge, Histogram

from barnabas.runtime import metrics
from barnabas.runtime.metrics import CATALOGUE, Metric
from tests.contract.sources import modules

# Labels whose values are from a short list that the code knows.
_BOUNDED = {
    "source", "outcome", "state", "priority", "verdict", "what", "tier", "kind", "step", "group", "topic", "event",
    "reason",
}  # fmt: skip
_UNITS = ("_seconds", "_bytes", "_rows", "_records")
# Gauges that count what stands in their name.
_COUNTED = {
    "barnabas_jobs",
    "barnabas_slots",
    "barnabas_workers",
    "barnabas_workers_desired",
    "barnabas_workers_reason",
    "barnabas_worker_service_rate",
    "barnabas_backlog_jobs",
    "barnabas_slots_busy",
    "barnabas_timers",
    "barnabas_deliveries_open",
    "barnabas_dead_letters",
    "barnabas_ready",
}
every_metric = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


@every_metric
def test_a_name_is_of_the_product_and_says_its_unit(metric: Metric) -> None:
    assert re.fullmatch(r"barnabas_[a-z]+(_[a-z]+)*", metric.name)
    if metric.kind == "counter":
        assert metric.name.endswith("_total")
    else:
        assert metric.name.endswith(_UNITS) or metric.name in _COUNTED


@every_metric
def test_no_label_can_have_a_value_for_each_job_or_tenant(metric: Metric) -> None:
    assert set(metric.labels) <= _BOUNDED
    assert len(metric.labels) <= 2


@every_metric
def test_a_metric_says_what_it_measures(metric: Metric) -> None:
    assert metric.help.endswith(".")
    assert len(metric.help.split()) > 3


def test_names_are_unique() -> None:
    names = [name for metric in CATALOGUE for name in metric.sample_names]

    assert len(names) == len(set(names))


def test_the_catalogue_is_what_is_exported() -> None:
    exported = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type)
        for family in metrics.REGISTRY.collect()
        if not family.name.startswith("process_")
    }

    assert exported == {(metric.name, metric.kind) for metric in CATALOGUE}


def test_metrics_are_declared_in_one_place() -> None:
    strays = [
        f"{module.shown}:{found.line}"
        for module in modules()
        if module.name != "barnabas.runtime.metrics"
        for found in module.imports
        if found.name.startswith("prometheus_client.") and found.name.split(".")[-1] in {"Counter", "Gauge", "Summary"}
    ]

    assert strays == []


def test_every_metric_is_fed_by_something() -> None:
    text = "\n".join(module.text for module in modules() if module.name != "barnabas.runtime.metrics")
    names = {
        name: next(iter(variable.describe())).name
        for name, variable in vars(metrics).items()
        if isinstance(variable, Counter | Gauge | Histogram)
    }

    assert len(names) == len(CATALOGUE)
    assert [name for name in names if not re.search(rf"\bmetrics\.{name}\b", text)] == []
