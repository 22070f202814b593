"""Just enough PromQL to say which metrics, labels and label values a query names.

Not a parser: promtool judges syntax where it is installed. This runs everywhere and knows our catalogue.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from barnabas.contract import topics
from barnabas.domain.jobs import JobState, Priority
from barnabas.runtime import metrics
from barnabas_retry_scheduler.measure import GROUPS

SCRAPE_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to every sample."""

# What processes export beside the catalogue, and what Prometheus itself knows. None has labels of its own.
_PROCESS_METRICS = frozenset(
    sample.name
    for family in metrics.REGISTRY.collect()
    if family.name.startswith("process_")
    for sample in family.samples
)
_WITHOUT_LABELS = _PROCESS_METRICS | {"up"}

_KEYWORDS = frozenset(
    [
        "and",
        "or",
        "unless",
        "bool",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "offset",
        "inf",
        "nan",
        "start",
        "end",
        "atan2",
    ]
)
_SELECTOR = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?")
_MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_LABEL_LIST = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_DURATION = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")


@dataclass(frozen=True, slots=True)
class Selector:
    """One mention of a metric: its name and the (label, operator, value) it asks for."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What an expression mentions."""

    selectors: tuple[Selector, ...]
    grouped_by: frozenset[str] = field(default_factory=frozenset)


def read(expression: str) -> Query:
    """The selectors and the grouping labels of an expression."""
    grouped = {label.strip() for each in _LABEL_LIST.findall(expression) for label in each.split(",") if label.strip()}
    text = _DURATION.sub(" ", _LABEL_LIST.sub(" ", expression))
    return Query(tuple(_selectors(text)), frozenset(grouped))


def mistakes(expression: str, recorded: Mapping[str, str] | None = None) -> list[str]:
    """What the expression names and nobody exports: one sentence each. `recorded` are recording rules by name."""
    recorded = recorded or {}
    query = read(expression)
    found = [] if query.selectors else [f"no metric in {expression!r}"]
    known: set[str] = set(SCRAPE_LABELS)
    for selector in query.selectors:
        labels = labels_of(selector.metric, recorded)
        if labels is None:
            found.append(f"nobody exports {selector.metric}")
            continue
        known |= labels
        for label, operator, value in selector.matchers:
            if label not in labels:
                found.append(f"{selector.metric} has no label {label}")
            else:
                found += _wrong_values(selector.metric, label, operator, value, recorded)
    return found + [f"grouped by {label}, which none of its metrics has" for label in sorted(query.grouped_by - known)]


def labels_of(metric: str, recorded: Mapping[str, str]) -> frozenset[str] | None:
    """The labels of what a query may name; None when nobody exports it."""
    if metric in recorded:
        inner = read(recorded[metric])
        return frozenset().union(*(labels_of(each.metric, recorded) or () for each in inner.selectors)) - {"le"}
    if metric in _WITHOUT_LABELS:
        return SCRAPE_LABELS
    for each in metrics.CATALOGUE:
        if metric in each.sample_names:
            return SCRAPE_LABELS | set(each.labels) | ({"le"} if metric.endswith("_bucket") else set())
    return None


def _selectors(text: str) -> Iterator[Selector]:
    # Strings outside of braces are arguments of functions such as label_replace.
    for match in _SELECTOR.finditer(_blank_arguments(text)):
        name, braces = match.groups()
        after = text[match.end() :].lstrip()
        if name.lower() in _KEYWORDS or (after.startswith("(") and braces is None):
            continue
        yield Selector(name, tuple(_MATCHER.findall(braces or "")))


def _blank_arguments(text: str) -> str:
    """The text with the strings outside of braces blanked, of the same length."""
    parts = re.split(r"(\{[^}]*\})", text)
    return "".join(
        part if part.startswith("{") else _STRING.sub(lambda m: " " * len(m.group()), part) for part in parts
    )


def _wrong_values(metric: str, label: str, operator: str, value: str, recorded: Mapping[str, str]) -> list[str]:
    """Values that the label never has. A metric's help lists them, unless they are names from elsewhere."""
    if operator in {"=~", "!~"}:
        if not re.fullmatch(r"[\w.-]+(\|[\w.-]+)*", value):
            return []
        values: Iterable[str] = value.split("|")
    else:
        values = (value,)
    return [f"{metric}: {label} is never {each}" for each in values if not _is_value(metric, label, each, recorded)]


def _is_value(metric: str, label: str, value: str, recorded: Mapping[str, str]) -> bool:
    if metric in recorded:
        return any(_is_value(each.metric, label, value, recorded) for each in read(recorded[metric]).selectors)
    match label:
        case "job":
            return value in {"ingest", "worker", "notifier", "retry-scheduler"}
        case "topic":
            return value in topics.BY_NAME
        case "group":
            return value in GROUPS
        case "priority":
            return value in {each.label for each in Priority}
        case "state" if metric == "barnabas_jobs":
            return value in {each.label for each in JobState}
    about = next(each.help for each in metrics.CATALOGUE if metric in each.sample_names)
    return re.search(rf"\b{re.escape(value)}\b", about) is not None
