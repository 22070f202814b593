"""docs/reference/job-states.md: states and moves of jobs, from the transition table, and the drawing of it."""

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.deliveries import DELIVERY_TERMINAL, DeliveryState
from barnabas.domain.jobs import TERMINAL, TRANSITIONS, JobState, mermaid
from barnabas.generate import markdown
from barnabas.generate.attribute_docs import attribute_docs
from barnabas.generate.markdown import code

_INTRODUCTION = """
A job is in one state at a time and ends in exactly one of three, for ever. Numbers are what the database stores.
"""

_ATTEMPTS = """
## Lines of a job's timeline

Only lines of kind `attempt` count towards `max_attempts`.
"""

_DELIVERIES = """
## States of a delivery

A delivery is one event on its way to one endpoint. It is claimed under a fence and a lease, as jobs are.
"""


def text() -> str:
    """The page."""
    meanings, kinds, deliveries = (attribute_docs(each) for each in (JobState, AttemptKind, DeliveryState))
    head = ("state", "number", "open", "meaning")
    states = [
        (code(state.label), str(state.value), "no" if state in TERMINAL else "yes", meanings[state.name])
        for state in JobState
    ]
    moves = [
        (code(source.label), command.value, code(target.label)) for (source, command), target in TRANSITIONS.items()
    ]
    timeline = [(code(kind.label), str(kind.value), kinds[kind.name]) for kind in AttemptKind]
    delivery_states = [
        (code(state.label), str(state.value), "no" if state in DELIVERY_TERMINAL else "yes", deliveries[state.name])
        for state in DeliveryState
    ]
    return markdown.page(
        "States of a job",
        "the transition table in `barnabas/domain/jobs.py`",
        _INTRODUCTION,
        f"```mermaid\n{mermaid()}```",
        markdown.table(head, states),
        "## Moves",
        markdown.table(("from", "by", "to"), moves),
        _ATTEMPTS,
        markdown.table(("kind", "number", "meaning"), timeline),
        _DELIVERIES,
        markdown.table(head, delivery_states),
    )
