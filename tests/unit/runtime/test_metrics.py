import random
import re

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from barnabas.runtime import metrics
from barnabas.runtime.metrics import CATALOGUE, Metric, observe_all

# Whatever a tenant or a client chooses has no bound, so no label may carry it.
UNBOUNDED = {"job_id", "tenant", "tenant_id", "endpoint", "endpoint_id", "attempt", "partition", "url", "worker", "key"}


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_a_metric_is_named_explained_and_bounded_as_all_are(metric: Metric) -> None:
    assert re.fullmatch(r"barnabas_[a-z]+(_[a-z]+)*", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert not re.search(r"(milliseconds|_ms|minutes|kilobytes|_kb|_mb)$", metric.name)
    assert metric.help.endswith(".")
    assert not UNBOUNDED & set(metric.labels)


def test_no_name_is_declared_twice() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_the_catalogue_says_what_is_exported() -> None:
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation)
        for family in text_string_to_metric_families(metrics.exposition().decode())
    }

    for metric in CATALOGUE:
        assert exported[metric.name] == (metric.kind, metric.help)


def test_observing_many_at_once_equals_observing_each() -> None:
    rng = random.Random(7)
    values = [rng.expovariate(2) for _ in range(500)] + [0.1, 0.5, 1.0, 100.0]
    registry = CollectorRegistry()
    each = Histogram("each", "x", registry=registry, buckets=(0.1, 0.5, 1.0))
    many = Histogram("many", "x", ["step"], registry=registry, buckets=(0.1, 0.5, 1.0))
    for value in values:
        each.observe(value)
    observe_all(many.labels("a"), values)
    observe_all(many.labels("a"), [])

    for bound in ("0.1", "0.5", "1.0", "+Inf"):
        assert registry.get_sample_value("many_bucket", {"step": "a", "le": bound}) == registry.get_sample_value(
            "each_bucket", {"le": bound}
        )
    assert registry.get_sample_value("many_sum", {"step": "a"}) == pytest.approx(registry.get_sample_value("each_sum"))
