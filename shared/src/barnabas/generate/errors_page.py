"""docs/reference/errors.md: every code that a person or a program may meet, from the classes and tables that own it."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from barnabas.contract.problems import KINDS, TYPE_PREFIX
from barnabas.domain.attempts import DeadLetterReason
from barnabas.domain.deliveries import DeliveryDeadLetterReason
from barnabas.errors import BarnabasError, RejectedError, SupersededError, TransientError
from barnabas.generate import markdown
from barnabas.generate.markdown import code

PACKAGES = (
    "barnabas",
    "barnabas_ingest",
    "barnabas_worker",
    "barnabas_notifier",
    "barnabas_retry_scheduler",
    "barnabas_local",
)

_INTRODUCTION = """
A code never changes its meaning. Programs should look at codes and at `retryable`, never at a text.
"""

_PROBLEMS = f"""
## Refusals

What the HTTP API answers as `application/problem+json` (RFC 9457), what a batch says of one job, and what a rejected
intake record carries in a header. `type` is `{TYPE_PREFIX}<code>`.
"""

_DEAD_LETTERS = """
## Why something is a dead letter
"""

# Not by reason: the two kinds share some of their words.
_REASONS = (
    (
        "job",
        DeadLetterReason.PERMANENT_ERROR,
        "The handler raised a permanent error, or the payload didn't fit its model.",
    ),
    ("job", DeadLetterReason.ATTEMPTS_EXHAUSTED, "Every attempt failed."),
    ("job", DeadLetterReason.WORKER_LOST, "The process died under it three times."),
    ("delivery", DeliveryDeadLetterReason.ATTEMPTS_EXHAUSTED, "The endpoint's retry schedule is used up."),
    ("delivery", DeliveryDeadLetterReason.ENDPOINT_GONE, "The endpoint answered 410; it is disabled."),
)

_ERRORS = """
## Errors in Python and in logs

`transient`: try later. `rejected`: it never will work as it is. `superseded`: the world moved on, what was done is
dropped and counted.
"""


def error_classes() -> list[type[BarnabasError]]:
    """Every error class of the product, by module and name."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            # Importing a `__main__` would run it.
            if not module.name.endswith("__main__"):
                import_module(module.name)
    return sorted(set(_below(BarnabasError)), key=lambda found: (found.__module__, found.__name__))


def text() -> str:
    """The page."""
    problems = [
        (code(name), str(kind.status), "yes" if kind.retryable else "no", kind.title) for name, kind in KINDS.items()
    ]
    reasons = [(what, code(reason.value), meaning) for what, reason, meaning in _REASONS]
    errors = [
        (code(found.code), _kind(found), f"{code(found.__module__)}", _first_line(found))
        for found in error_classes()
        if "code" in vars(found)
    ]
    return markdown.page(
        "Errors",
        "the error classes and `barnabas/contract/problems.py`",
        _INTRODUCTION,
        _PROBLEMS,
        markdown.table(("code", "status", "retryable", "meaning"), problems),
        _DEAD_LETTERS,
        markdown.table(("of a", "reason", "meaning"), reasons),
        _ERRORS,
        markdown.table(("code", "kind", "module", "meaning"), errors),
    )


def _below(base: type[BarnabasError]) -> Iterator[type[BarnabasError]]:
    for found in base.__subclasses__():
        # A test's own errors are no part of the product.
        if found.__module__.split(".")[0] in PACKAGES:
            yield found
            yield from _below(found)


def _kind(found: type[BarnabasError]) -> str:
    bases = (TransientError, RejectedError, SupersededError)
    return next((base.code for base in bases if issubclass(found, base)), "")


def _first_line(found: type[BarnabasError]) -> str:
    return (found.__doc__ or "").strip().split("\n\n", 1)[0]
