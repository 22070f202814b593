"""One call to an endpoint: signed, under one deadline, bounded in everything that the other side could make large.

The receiver is not trusted: no redirect is followed, no cookie kept, nothing decompressed, and whatever it answers ends
as a value. Only addresses that the resolver judged are connected to.
"""

import asyncio
import io
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Final
from uuid import UUID

import aiohttp
import structlog
from yarl import URL

from barnabas.domain import signing
from barnabas.domain.deliveries import ConnectFailed, DeliveryOutcome, HttpAnswer, Refused, TimedOut
from barnabas.domain.targets import BadTargetError, parse_target
from barnabas.postgres.live_endpoints import LiveEndpoint
from barnabas.runtime.clock import Clock
from barnabas_notifier.resolver import CheckedResolver, Lookup, TargetRefusedError, checked_socket

log = structlog.get_logger(__name__)

# Read, so that the connection can be used again; what is longer costs the receiver its connection.
_BODY_READ_BYTES: Final = 16 * 1024
_EXCERPT_BYTES: Final = 4 * 1024
# An answer in flight is held in at most twice this, and headers in as much.
_BUFFER_BYTES: Final = 16 * 1024
_HEADER_BYTES: Final = 8 * 1024
_HEADERS_MAX: Final = 64
_DNS_CACHE_SECONDS: Final = 10
_KEEPALIVE_SECONDS: Final = 30.0
# aiohttp copies a larger body at once and warns; from a file object it is written in pieces.
_BODY_IN_PIECES_BYTES: Final = 64 * 1024

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]{0,4096}")
_OURS: Final = frozenset(
    {
        signing.ID_HEADER,
        signing.TIMESTAMP_HEADER,
        signing.SIGNATURE_HEADER,
        signing.PLAIN_HEADER.lower(),
        "host",
        "user-agent",
        "content-type",
        "content-length",
        "content-encoding",
        "accept-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "cookie",
    }
)


# A URL is judged for every attempt, and the judgement of the same text is the same.
_parsed = lru_cache(maxsize=4_096)(parse_target)


@dataclass(frozen=True, slots=True)
class Called:
    """How a call ended. `status` is there as soon as the receiver sent one, even if the rest never came."""

    outcome: DeliveryOutcome
    status: int | None = None
    excerpt: bytes | None = None


class Caller:
    """Makes calls over one session. Made by `open_caller`."""

    def __init__(
        self, session: aiohttp.ClientSession, *, clock: Clock, call_seconds: float, allow_private: bool
    ) -> None:
        self._session = session
        self._clock = clock
        self._call_seconds = call_seconds
        self._allow_private = allow_private

    async def call(self, endpoint: LiveEndpoint, event_id: UUID, body: bytes) -> Called:
        """Send one webhook. Raises nothing but `CancelledError`."""
        try:
            target = _parsed(endpoint.url, allow_private=self._allow_private)
        except BadTargetError:
            return Called(Refused("target_refused"))
        if not endpoint.secrets:
            return Called(Refused("no_signing_secret"))
        answer = _Answer()
        try:
            async with asyncio.timeout(self._call_seconds):
                headers = self._headers(endpoint, event_id, body)
                await self._exchange(URL(target.url, encoded=True), headers, body, answer)
        except TimeoutError:
            return Called(TimedOut(self._call_seconds), answer.status, answer.excerpt)
        except Exception as error:  # noqa: BLE001 - no receiver's answer may end the process
            code = _code(error)
            if code == "unexpected":
                log.warning("call_failed_unexpectedly", endpoint_id=str(endpoint.key.endpoint_id), error=repr(error))
            outcome = Refused(code) if code == "target_refused" else ConnectFailed(code)
            return Called(outcome, answer.status, answer.excerpt)
        assert answer.status is not None
        return Called(
            HttpAnswer(answer.status, answer.retry_after, answer.excerpt or b""), answer.status, answer.excerpt
        )

    async def _exchange(self, url: URL, headers: Mapping[str, str], body: bytes, answer: "_Answer") -> None:
        try:
            await self._post(url, headers, body, answer)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError, aiohttp.ClientOSError) as error:
            # A kept connection that the receiver was just closing: that is nobody's failure, and not worth an attempt.
            if not answer.connection_was_used or answer.status is not None or _is_connecting(error):
                raise
            await self._post(url, headers, body, answer)

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes, answer: "_Answer") -> None:
        data = body if len(body) <= _BODY_IN_PIECES_BYTES else io.BytesIO(body)
        async with self._session.post(
            url, data=data, headers=headers, allow_redirects=False, trace_request_ctx=answer
        ) as response:
            answer.status = response.status
            answer.retry_after = retry_after_seconds(response.headers.get("Retry-After"), now=self._clock.now())
            content = bytearray()
            while len(content) <= _BODY_READ_BYTES:
                piece = await response.content.read(_BODY_READ_BYTES + 1 - len(content))
                if not piece:
                    answer.excerpt = bytes(content[:_EXCERPT_BYTES])
                    return
                content += piece
                answer.excerpt = bytes(content[:_EXCERPT_BYTES])
            # Too long to be read to its end: closed, not released, or the rest would be.
            response.close()

    def _headers(self, endpoint: LiveEndpoint, event_id: UUID, body: bytes) -> dict[str, str]:
        own = {
            name: value
            for name, value in endpoint.headers.items()
            if name.lower() not in _OURS and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)
        }
        signed = signing.headers(endpoint.secrets, str(event_id), int(self._clock.now().timestamp()), body)
        return own | signed | {"Content-Type": "application/json"}


@asynccontextmanager
async def open_caller(
    lookup: Lookup, *, clock: Clock, call_seconds: float, allow_private: bool, version: str
) -> AsyncIterator[Caller]:
    """A caller whose session ends with the block."""
    connector = aiohttp.TCPConnector(
        resolver=CheckedResolver(lookup, allow_private=allow_private),
        socket_factory=checked_socket(allow_private),
        ttl_dns_cache=_DNS_CACHE_SECONDS,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        ssl=ssl.create_default_context(),
        # The lanes bound calls, per endpoint and in all.
        limit=0,
    )
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_used_connection)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        # The deadline is ours, over the whole call.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"User-Agent": f"barnabas/{version}", "Accept": "*/*", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_BUFFER_BYTES,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        max_headers=_HEADERS_MAX,
        trace_configs=[trace],
    ) as session:
        yield Caller(session, clock=clock, call_seconds=call_seconds, allow_private=allow_private)


def retry_after_seconds(text: str | None, *, now: datetime) -> float | None:
    """What `Retry-After` asks for, in seconds from now, in both of its forms; None for nothing or nonsense.

    Source: RFC 9110, 10.2.3.
    """
    if text is None or len(text) > 64:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


@dataclass(slots=True)
class _Answer:
    """What has arrived so far."""

    status: int | None = None
    retry_after: float | None = None
    excerpt: bytes | None = None
    connection_was_used: bool = False
    """Whether an earlier call had left the connection open."""


async def _note_used_connection(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.connection_was_used = True


def _is_connecting(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError)


def _code(error: BaseException) -> str:
    """A stable word for people. Never the error's own text: it may name an address inside a network."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TargetRefusedError):
            return "target_refused"
        seen = seen.__cause__ or seen.__context__
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls_failed"
        case aiohttp.ClientConnectorDNSError():
            return "name_not_resolved"
        case aiohttp.ClientConnectorError():
            return "connection_refused"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "disconnected"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "bad_answer"
        case aiohttp.InvalidURL():
            return "target_refused"
        case aiohttp.ClientError() | OSError():
            return "call_failed"
        case _:
            return "unexpected"
