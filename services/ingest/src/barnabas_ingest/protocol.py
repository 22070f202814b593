"""HTTP/1.1 as strangers speak it: uvicorn's protocol with its gaps closed.

One request, one answer: what two servers in a row could read in two ways gets a single 400 and the connection ends
(stock uvicorn answers twice: its application, and the parser's error). Headers have a size, a request has a time to
arrive in, an answer a time to be taken in. Source of the rules on framing: RFC 9112, sections 6 and 11.2.
"""

import re
import time
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from barnabas.contract import problems
from barnabas.contract.problems import encode_problem, problem

_HEAD_BYTES_MAX = 65_536
_HEADERS_MAX = 100
# Of a body that was refused before its end so much is read and dropped: closing at once would reset the connection,
# and the answer with it.
_DISCARDED_BYTES_MAX = 16 * 1024 * 1024
_LINGER_SECONDS = 1.0

_LENGTH = re.compile(rb"[0-9]{1,18}")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Neither control characters (a tab excepted) nor a bare carriage return or line feed.
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:\[\]%-]*")


class _RefusedError(Exception):
    """Raised out of the parser's callbacks: it stops reading there."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class GuardedProtocol(HttpToolsProtocol):
    """One connection. The server's sweep calls `enforce` each second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._arriving_since: float | None = time.monotonic()
        self._blocked_since: float | None = None
        self._answering = 0
        self._refused_as: str | None = None
        self._refusal_due = False

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless this connection has been given up."""
        if self._refused_as is not None:
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing here is upgraded: the request is answered as it is, and what follows isn't read.
            self._refused_as = "malformed_request"
            self.cycle.keep_alive = False
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.code if isinstance(cause, _RefusedError) else "malformed_request")
            return
        if self._in_head and self._head_bytes > _HEAD_BYTES_MAX:
            self._refuse("headers_too_large")

    def on_message_begin(self) -> None:
        """A request begins to arrive."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._arriving_since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one that comes after a chunked body is no header of ours."""
        if not self._in_head:
            return
        if len(self.headers) >= _HEADERS_MAX:
            raise _RefusedError("headers_too_large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Judge the head before anything is started for it."""
        _check_head(self.headers, version=self.parser.get_http_version())
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body; a request that is answered already may not go on sending for ever."""
        super().on_body(body)
        if self.cycle.response_complete:
            self._head_bytes += len(body)
            if self._head_bytes > _DISCARDED_BYTES_MAX:
                self.transport.close()

    def on_message_complete(self) -> None:
        """A request has arrived."""
        self._arriving_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been sent."""
        self._answering -= 1
        if self.cycle.response_complete:
            # What had arrived of a body that was refused unread: nobody counts it, and the connection may be kept.
            self.cycle.body.clear()
        super().on_response_complete()
        if self._refusal_due and not self._answering and not self.transport.is_closing():
            self._send_refusal()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering += 1
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The other side doesn't read."""
        self._blocked_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._blocked_since = None
        super().resume_writing()

    def enforce(self, now: float, limit_seconds: float, *, excused_seconds: float = 0.0) -> None:
        """End the connection when a request arrives too slowly, or an answer is taken too slowly.

        For `excused_seconds` since the last call it was this process that stood still.
        """
        if self.transport.is_closing():
            return
        if self._arriving_since is not None:
            self._arriving_since += excused_seconds
        if self._blocked_since is not None:
            self._blocked_since += excused_seconds
        if self._blocked_since is not None and now - self._blocked_since > limit_seconds:
            self.transport.abort()
        elif self._arriving_since is not None:
            if self.flow.read_paused:
                self._arriving_since = now  # it is we who don't read
            elif now - self._arriving_since > limit_seconds:
                self._refuse("request_timeout")

    def _refuse(self, code: str) -> None:
        """Read nothing more; answer once, after the requests that came before, and close."""
        self._refused_as = code
        self._arriving_since = None
        self._unset_keepalive_if_required()
        broken: RequestResponseCycle | None = self.cycle
        if broken is not None and broken.more_body and broken.response_complete:
            # It was answered before it had arrived.
            self.transport.close()
            return
        if broken is not None and broken.more_body:
            # The request whose body went wrong has been started, or waits for its turn.
            waiting = next((entry for entry in self.pipeline if entry[0] is broken), None)
            if waiting is not None:
                self.pipeline.remove(waiting)
            else:
                broken.disconnected = True
                broken.message_event.set()
                if broken.response_started:
                    self.transport.close()
                else:
                    self._send_refusal()
                return
        if self._answering:
            self._refusal_due = True
        else:
            self._send_refusal()

    def _send_refusal(self) -> None:
        body = encode_problem(problem(self._refused_as or "malformed_request"))
        status = problems.KINDS[self._refused_as or "malformed_request"].status
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (
            STATUS_LINE[status],
            problems.CONTENT_TYPE.encode(),
            len(body),
        )
        self.transport.write(head + body)
        # What is still on its way is read and dropped for a moment: closing now would reset the connection, and the
        # answer with it.
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _check_head(headers: list[tuple[bytes, bytes]], *, version: str) -> None:
    lengths: list[bytes] = []
    codings: list[bytes] = []
    hosts: list[bytes] = []
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _RefusedError("malformed_request")
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"host":
            hosts.append(value)
    if version not in ("1.0", "1.1"):
        raise _RefusedError("malformed_request")
    if lengths and (codings or len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0])):
        raise _RefusedError("malformed_request")
    if codings and (version == "1.0" or len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise _RefusedError("malformed_request")
    if len(hosts) > 1 or (version == "1.1" and not hosts) or (hosts and not _HOST.fullmatch(hosts[0])):
        raise _RefusedError("malformed_request")
