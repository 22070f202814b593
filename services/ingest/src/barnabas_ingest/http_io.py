"""Requests in and answers out, at the level of ASGI: what both the hot path and the other routes use."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

from starlette.responses import Response

from barnabas.contract import problems
from barnabas.contract.jobs import encode
from barnabas.contract.problems import Problem, encode_problem, refused
from barnabas_ingest.budget import Share

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON_HEADER: Header = (b"content-type", b"application/json")
_PROBLEM_HEADER: Header = (b"content-type", problems.CONTENT_TYPE.encode())
_RETRY_AFTER: Header = (b"retry-after", b"1")
_CHALLENGE: Header = (b"www-authenticate", b"Bearer")


class Answer(NamedTuple):
    """What is sent."""

    status: int
    body: bytes
    headers: Sequence[Header] = (JSON_HEADER,)


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


def json_answer(status: int, value: Any, *headers: Header) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, encode(value), (JSON_HEADER, *headers))


def problem_answer(problem: Problem) -> Answer:
    """A refusal, with the headers that its kind asks for."""
    headers = [_PROBLEM_HEADER]
    if problem.status == 503:
        headers.append(_RETRY_AFTER)
    elif problem.status == 401:
        headers.append(_CHALLENGE)
    return Answer(problem.status, encode_problem(problem), headers)


def as_response(answer: Answer) -> Response:
    """The same as the web framework sends it."""
    response = Response(answer.body, answer.status)
    response.raw_headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    return response


async def send_answer(send: Send, answer: Answer, *, with_body: bool = True) -> None:
    """Send it."""
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})


def announced_bytes(headers: MutableMapping[bytes, bytes], *, most: int) -> int:
    """How long the body says it is, 0 when it doesn't; raises `ProblemError` (413) for too long."""
    length = int(headers.get(b"content-length", b"0"))
    if length > most:
        raise too_large(most)
    return length


async def read_body(receive: Receive, share: Share, *, announced: int, most: int) -> bytes:
    """The whole body; raises `ProblemError` (413) above `most`, `OverloadedError`, `ClientGoneError`."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = message["body"]
    if not message["more_body"]:
        if len(body) > announced:
            _count(share, len(body), announced, most)
        return body
    parts = [body]
    length = len(body)
    held = announced
    while message["more_body"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts.append(message["body"])
        length += len(message["body"])
        if length > held:
            _count(share, length, held, most)
            held = length
    return b"".join(parts)


def too_large(most: int) -> problems.ProblemError:
    """The refusal of a body above the limit."""
    return refused("too_large", f"at most {most} bytes")


def check_json(headers: MutableMapping[bytes, bytes]) -> None:
    """Raise `ProblemError` (415) unless the body says that it is plain JSON, or says nothing."""
    kind = media_type(headers)
    if kind not in (b"", b"application/json"):
        raise refused("unsupported_media_type", "send application/json")


def media_type(headers: MutableMapping[bytes, bytes]) -> bytes:
    """The body's media type without its parameters, lower case; raises `ProblemError` for a compressed body."""
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise refused("unsupported_media_type", "send the body uncompressed")
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _count(share: Share, length: int, held: int, most: int) -> None:
    if length > most:
        raise too_large(most)
    share.grow(length - held)
