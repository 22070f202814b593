"""shared/src/barnabas/contract/schemas/*.json: what others parse or send, as JSON Schema (draft 2020-12)."""

import json
from typing import Final

import msgspec

from barnabas.contract.deliveries import DeadDelivery
from barnabas.contract.events import JobEvent, Webhook
from barnabas.contract.intake import JobInput
from barnabas.contract.jobs import JobView
from barnabas.contract.problems import Problem

SCHEMAS: Final[dict[str, type[msgspec.Struct]]] = {
    "job_input": JobInput,
    "job": JobView,
    "job_event": JobEvent,
    "webhook": Webhook,
    "dead_delivery": DeadDelivery,
    "problem": Problem,
}
"""By file name. `job_input` is what callers send: by HTTP, as one of a batch, and on the intake topic."""


def json_schema(name: str) -> str:
    """The file's text."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(SCHEMAS[name])}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
