"""The OpenAPI 3.1 document: FastAPI's account of paths and parameters, msgspec's of bodies."""

import json
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from barnabas.contract import explain, http, limits, queues
from barnabas.contract.intake import JobInput
from barnabas.contract.jobs import JobError, JobView
from barnabas.contract.problems import CONTENT_TYPE, Problem

_JSON = "application/json"
_REF = "#/components/schemas/{name}"

_STRUCTS: tuple[type[msgspec.Struct], ...] = (
    JobInput,
    JobView,
    JobError,
    Problem,
    http.BatchAnswer,
    http.JobPage,
    http.TimelineAnswer,
    explain.ExplainView,
    http.DeliveryPage,
    http.DeadLetterPage,
    http.RedriveInput,
    http.RedriveAnswer,
    http.EndpointInput,
    http.EndpointView,
    http.EndpointPage,
    http.TenantInput,
    http.TenantView,
    http.TenantPage,
    http.KeyInput,
    http.KeyView,
    http.KeyPage,
    limits.LimitsInput,
    limits.LimitsView,
    queues.QueueInput,
    queues.QueueView,
    queues.QueueList,
)

_BODIES: dict[str, type[msgspec.Struct]] = {
    "submit_job": JobInput,
    "redrive_dead_letters": http.RedriveInput,
    "create_endpoint": http.EndpointInput,
    "create_tenant": http.TenantInput,
    "create_key": http.KeyInput,
    "set_limits": limits.LimitsInput,
    "set_queue": queues.QueueInput,
}
_ANSWERS: dict[str, tuple[tuple[int, type[msgspec.Struct] | None, str], ...]] = {
    "submit_job": ((202, JobView, "Stored."), (200, JobView, "The job that this idempotency key stands for.")),
    "submit_batch": ((200, http.BatchAnswer, "One verdict for each job, in order."),),
    "list_jobs": ((200, http.JobPage, "A page."),),
    "get_job": ((200, JobView, "The job."),),
    "list_attempts": ((200, http.TimelineAnswer, "The timeline."),),
    "explain_job": ((200, explain.ExplainView, "The first cause."),),
    "cancel_job": ((200, JobView, "It has ended."), (202, JobView, "It runs, and has been asked to end.")),
    "retry_job": ((202, JobView, "The new job."),),
    "list_deliveries": ((200, http.DeliveryPage, "A page."),),
    "list_dead_letters": ((200, http.DeadLetterPage, "A page."),),
    "redrive_dead_letters": ((200, http.RedriveAnswer, "How many."),),
    "create_endpoint": ((201, http.EndpointView, "The endpoint with its secret."),),
    "list_endpoints": ((200, http.EndpointPage, "A page."),),
    "delete_endpoint": ((204, None, "Deleted."),),
    "create_tenant": ((201, http.TenantView, "The tenant."),),
    "list_tenants": ((200, http.TenantPage, "A page."),),
    "create_key": ((201, http.KeyView, "The key, shown once."),),
    "list_keys": ((200, http.KeyPage, "A page."),),
    "revoke_key": ((204, None, "Revoked."),),
    "get_limits": ((200, limits.LimitsView, "The limits."),),
    "set_limits": ((200, limits.LimitsView, "The limits."),),
    "list_queues": ((200, queues.QueueList, "All of them."),),
    "get_queue": ((200, queues.QueueView, "The queue."),),
    "set_queue": ((200, queues.QueueView, "The queue."),),
}
_ABOUT = """\
Jobs of many tenants: submit them, watch them, hear of their end by webhook.

The tenant comes from the credential. Every refusal is a problem document (RFC 9457); `retryable` says whether the same
request may work later. Lists are newest first and go on at `next_cursor`.
"""


def describe(app: FastAPI) -> None:
    """Serve the document at `/openapi.json` and its reader at `/docs`."""
    text = json.dumps(document(app)).encode()

    async def get_document(_request: Request) -> Response:
        return Response(text, media_type=_JSON)

    async def get_reader(_request: Request) -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Barnabas")

    app.add_route("/openapi.json", get_document, methods=["GET"], include_in_schema=False)
    app.add_route("/docs", get_reader, methods=["GET"], include_in_schema=False)


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document as plain values."""
    made = get_openapi(title="Barnabas", version="1", description=_ABOUT, openapi_version="3.1.0", routes=app.routes)
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template=_REF)
    for path in made["paths"].values():
        for operation in path.values():
            _complete(operation)
    made["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key; on admin routes the admin key."},
            "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        },
    }
    made["security"] = [{"bearer": []}, {"api_key": []}]
    return made


def _complete(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    operation["responses"] = {str(status): _answer(kind, about) for status, kind, about in _ANSWERS[name]} | {
        "default": {
            "description": "Refused.",
            "content": {CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    }
    if name in _BODIES:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": _ref(_BODIES[name])}}}
    if name == "submit_batch":
        operation["requestBody"] = {
            "required": True,
            "content": {
                _JSON: {"schema": {"type": "array", "maxItems": 10_000, "items": _ref(JobInput)}},
                "application/x-ndjson": {"schema": {"type": "string", "description": "One job a line."}},
            },
        }
    if name == "submit_job":
        operation.setdefault("parameters", []).append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                "description": "The same key and body again: the same job. Kept for 24 hours.",
            }
        )


def _answer(kind: type[msgspec.Struct] | None, about: str) -> dict[str, Any]:
    if kind is None:
        return {"description": about}
    return {"description": about, "content": {_JSON: {"schema": _ref(kind)}}}


def _ref(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
