"""docs/reference/metrics.md: every metric of the product, from its one declaration."""

from barnabas.generate import markdown
from barnabas.generate.markdown import code
from barnabas.runtime.metrics import CATALOGUE

_INTRODUCTION = """
Every process serves its metrics on its ops port under `/metrics`, in Prometheus's text format. Base units are in the
names. A histogram is exported as `<name>_bucket`, `<name>_sum` and `<name>_count`. Labels have few values: there is
never an id or a tenant in one. The usual `process_*` metrics (memory, CPU, open files) stand beside these.
"""


def text() -> str:
    """The page."""
    rows = [
        (code(metric.name), metric.kind, ", ".join(code(each) for each in metric.labels), metric.help)
        for metric in CATALOGUE
    ]
    return markdown.page(
        "Metrics",
        "`barnabas/runtime/metrics.py`",
        _INTRODUCTION,
        markdown.table(("name", "kind", "labels", "meaning"), rows),
    )
