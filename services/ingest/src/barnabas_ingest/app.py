"""The application: the two hot routes, answered below the web framework, and FastAPI for all others.

Every refusal leaves as a problem document, whoever raised it.
"""

from collections.abc import Awaitable, Callable

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from barnabas.contract.problems import FieldError, Problem, problem, problem_of
from barnabas.errors import BarnabasError, OverloadedError
from barnabas.runtime import metrics
from barnabas_ingest import admin, admin_queues, deliveries, dlq, endpoints, explain, jobs
from barnabas_ingest.batch import submit_batch
from barnabas_ingest.http_io import (
    Answer,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    as_response,
    problem_answer,
    send_answer,
)
from barnabas_ingest.openapi import describe
from barnabas_ingest.resources import Resources
from barnabas_ingest.submit import submit_job

log = structlog.get_logger(__name__)

_ROUTERS = (
    jobs.router,
    explain.router,
    endpoints.router,
    deliveries.router,
    dlq.router,
    admin.router,
    admin_queues.router,
)

Hot = Callable[[Resources, Scope, Receive], Awaitable[Answer]]


class Front:
    """What the server calls for each request."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._cold = make_app()
        self._cold.state.resources = resources
        self._requests = 0
        self._requests_max = resources.settings.http_connections_max
        self._hot: dict[tuple[str, str], tuple[str, Hot]] = {
            ("POST", "/v1/jobs"): ("http", submit_job),
            ("POST", "/v1/jobs/batch"): ("batch", submit_batch),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._requests >= self._requests_max:
            await send_answer(send, problem_answer(problem_of(OverloadedError())))
            return
        self._requests += 1
        try:
            hot = self._hot.get((scope["method"], scope["path"]))
            if hot is None:
                await self._cold(scope, receive, send)
            else:
                await self._submit(*hot, scope, receive, send)
        finally:
            self._requests -= 1

    async def _submit(self, source: str, step: Hot, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await step(self._resources, scope, receive)
        except BarnabasError as error:
            told = problem_of(error)
            if told.code == "internal":
                log.exception("request_failed", path=scope["path"])
            metrics.submissions.labels(source, "refused" if told.status >= 500 else "rejected").inc()
            answer = problem_answer(told)
        except ClientGoneError:
            return
        except Exception:  # around a handler: our mistake costs one request, not the connection of others
            log.exception("request_failed", path=scope["path"])
            answer = problem_answer(problem("internal"))
        await send_answer(send, answer)


def make_app() -> FastAPI:
    """The routes; `app.state.resources` is what they work with."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(BarnabasError, _tell)
    app.add_exception_handler(RequestValidationError, _tell_parameters)
    app.add_exception_handler(HTTPException, _tell_status)
    app.add_exception_handler(Exception, _tell_mistake)
    describe(app)
    return app


async def _tell(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BarnabasError), "registered for these"
    told = problem_of(error)
    if told.code == "internal":
        log.error("request_failed", exc_info=error)
    return _response(told)


async def _tell_parameters(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for these"
    errors = [FieldError(".".join(str(step) for step in each["loc"][1:]), each["msg"]) for each in error.errors()]
    return _response(problem("validation_failed", "a parameter is out of range", errors=errors))


async def _tell_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for these"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "malformed_request")
    response = _response(problem(code))
    if error.status_code == 405:
        # Each method of a path is a route of its own, and the framework names only the first one's.
        routes = (route for router in _ROUTERS for route in router.routes)
        same = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
        methods = {method for route in same for method in getattr(route, "methods", None) or ()}
        response.headers["allow"] = ", ".join(sorted(methods))
    return response


async def _tell_mistake(_request: Request, _error: Exception) -> Response:
    # Starlette raises it again after this answer, and uvicorn logs it with its traceback.
    return _response(problem("internal"))


def _response(told: Problem) -> Response:
    return as_response(problem_answer(told))
