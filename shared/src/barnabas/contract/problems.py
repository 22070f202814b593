"""Problem documents (RFC 9457): every refusal, in an HTTP answer, a batch verdict or beside a rejected record.

`KINDS` is the one table of them. A code never changes its meaning; `type` is made of it, and `retryable` says whether
the same request may work later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from barnabas.contract.jobs import encode
from barnabas.errors import BarnabasError

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:barnabas:problem:"
# Three such texts and the rest are about a kilobyte.
_TEXT_MAX = 250


@dataclass(frozen=True, slots=True)
class Kind:
    """What all problems of one code have in common."""

    status: int
    title: str
    retryable: bool = False


KINDS: dict[str, Kind] = {
    "malformed_request": Kind(400, "The request can't be read as HTTP"),
    "malformed_json": Kind(400, "The body is not JSON"),
    "malformed_record": Kind(400, "The record can't be read"),
    "unauthorized": Kind(401, "The credential is missing, unknown or revoked"),
    "wrong_tenant": Kind(401, "The record's key is not the tenant of its credential"),
    "not_found": Kind(404, "There is nothing here"),
    "method_not_allowed": Kind(405, "This can't be done here"),
    "request_timeout": Kind(408, "The request did not arrive in time", retryable=True),
    "not_redrivable": Kind(409, "Only a failed job can be redriven"),
    "dead_letter_closed": Kind(409, "The dead letter is closed"),
    "endpoint_unavailable": Kind(409, "The endpoint is deleted or disabled"),
    "job_ended": Kind(409, "The job has ended"),
    "name_taken": Kind(409, "The name is taken"),
    "too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body is of a kind that is not read here"),
    "validation_failed": Kind(422, "A value is missing, unknown or out of range"),
    "not_supported": Kind(422, "This release doesn't have that yet"),
    "bad_target": Kind(422, "This URL can't be a webhook's target"),
    "idempotency_key_reused": Kind(422, "The idempotency key was used for another body"),
    "too_many_queues": Kind(422, "There are as many queues as may be"),
    "unstorable": Kind(422, "This can't be stored"),
    "rate_limited": Kind(429, "More jobs than the tenant's limit allows", retryable=True),
    "headers_too_large": Kind(431, "The headers are too large"),
    "internal": Kind(500, "Something went wrong here", retryable=True),
    "overloaded": Kind(503, "Too much is waiting already", retryable=True),
    "database_unavailable": Kind(503, "The database can't be reached", retryable=True),
    "broker_unavailable": Kind(503, "Kafka can't be reached", retryable=True),
}


class FieldError(msgspec.Struct, frozen=True):
    """One value that is wrong: where (a JSON pointer, RFC 6901; the name of a query parameter or header), and why."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=False):
    """The document. `retryable`: the same request may work later."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool
    errors: Sequence[FieldError] = ()


class ProblemError(BarnabasError):
    """The caller is told why."""

    code = "problem"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def problem(code: str, detail: str = "", *, errors: Sequence[FieldError] = ()) -> Problem:
    """The document of that code; without a detail its title says it all."""
    kind = KINDS[code]
    cut = tuple(FieldError(_cut(each.pointer), _cut(each.detail)) for each in errors)
    return Problem(TYPE_PREFIX + code, kind.title, kind.status, code, _cut(detail) or kind.title, kind.retryable, cut)


def _cut(text: str) -> str:
    """Names and values of a caller's may stand in it, and they may be as long as his body."""
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."


def refused(code: str, detail: str = "", *, pointer: str | None = None) -> ProblemError:
    """The exception that carries a problem; with `pointer`, about that one value."""
    errors = () if pointer is None else (FieldError(pointer, detail or KINDS[code].title),)
    return ProblemError(problem(code, detail, errors=errors))


def problem_of(error: BarnabasError) -> Problem:
    """What a caller is told about one of our errors; those that are none of his business are `internal`."""
    if isinstance(error, ProblemError):
        return error.problem
    if error.code in KINDS:
        return problem(error.code, "" if KINDS[error.code].status >= 500 else str(error))
    return problem("internal")


def encode_problem(document: Problem) -> bytes:
    """JSON bytes."""
    return encode(document)
