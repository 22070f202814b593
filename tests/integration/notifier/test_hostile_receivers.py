"""Receivers that misbehave: every call ends by its deadline, holds little, and says what went wrong."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from barnabas.domain.deliveries import ConnectFailed, HttpAnswer, Refused, TimedOut
from barnabas.domain.signing import make_secret
from barnabas.postgres.live_endpoints import EndpointKey, LiveEndpoint
from barnabas.runtime.clock import SystemClock
from barnabas_notifier.caller import Called, Caller, open_caller, retry_after_seconds
from barnabas_notifier.resolver import CheckedResolver, Lookup, SystemLookup, TargetRefusedError
from tests.support.receiver import (
    Behaviour,
    Receiver,
    answer,
    drip_body,
    drip_headers,
    flood_informational,
    gzip_bomb,
    hang,
    huge_body,
    many_headers,
    open_receiver,
    raw,
    reset,
)

_DEADLINE_SECONDS = 0.5
# What a starved machine may add to a deadline; the point is that it ends at all, whatever the receiver goes on doing.
_LATE_SECONDS = 60.0
# Where the receiver ends the call, no deadline may come first.
_NO_DEADLINE_SECONDS = 120.0


def endpoint_at(url: str, **headers: str) -> LiveEndpoint:
    return LiveEndpoint(EndpointKey(uuid4(), uuid4()), url, None, (), headers, (make_secret(os.urandom(32)),))


@asynccontextmanager
async def caller(
    *, lookup: Lookup | None = None, call_seconds: float = _NO_DEADLINE_SECONDS, allow_private: bool = True
) -> AsyncIterator[Caller]:
    system = SystemLookup()
    try:
        async with open_caller(
            lookup or system,
            clock=SystemClock(),
            call_seconds=call_seconds,
            allow_private=allow_private,
            version="test",
        ) as opened:
            yield opened
    finally:
        system.close()


async def call_once(
    receiver: Receiver, behaviour: Behaviour, *, call_seconds: float = _NO_DEADLINE_SECONDS
) -> tuple[Called, float]:
    url = receiver.script("/", behaviour)
    async with caller(call_seconds=call_seconds) as opened:
        began = time.monotonic()
        called = await opened.call(endpoint_at(url), uuid4(), b"{}")
        return called, time.monotonic() - began


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


@pytest.mark.parametrize(
    "behaviour",
    [hang(), drip_headers(), drip_body(), drip_body(status=500), flood_informational()],
    ids=["hangs", "drips_headers", "drips_body", "drips_body_of_an_error", "floods_with_100_continue"],
)
async def test_a_call_ends_at_its_deadline_whatever_drips(receiver: Receiver, behaviour: Behaviour) -> None:
    called, seconds = await call_once(receiver, behaviour, call_seconds=_DEADLINE_SECONDS)

    assert isinstance(called.outcome, TimedOut)
    assert _DEADLINE_SECONDS <= seconds < _DEADLINE_SECONDS + _LATE_SECONDS


async def test_a_connection_that_is_never_accepted_ends_at_the_deadline() -> None:
    # A listener whose backlog is full: the kernel drops further handshakes.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        async with caller(call_seconds=_DEADLINE_SECONDS) as opened:
            called = await opened.call(endpoint_at(f"http://127.0.0.1:{port}/"), uuid4(), b"{}")
        for filler in fillers:
            filler.close()

    assert isinstance(called.outcome, TimedOut)


async def test_a_huge_answer_is_cut_off_and_counts_by_its_status(receiver: Receiver) -> None:
    called, _ = await call_once(receiver, huge_body(1 << 30))
    await receiver.close()

    assert called.outcome == HttpAnswer(200, None, bytes(4096))
    # What the sockets' buffers took, not the gigabyte.
    assert receiver.sent_bytes["/"] < 32 << 20


async def test_a_compressed_bomb_is_not_inflated(receiver: Receiver) -> None:
    called, _ = await call_once(receiver, gzip_bomb(1 << 22))

    assert isinstance(called.outcome, HttpAnswer)
    assert called.status == 200
    assert called.excerpt is not None
    assert called.excerpt[:2] == b"\x1f\x8b"
    assert len(called.excerpt) <= 4096


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (reset(), "disconnected"),
        (raw(b""), "disconnected"),
        (raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "bad_answer"),
        (raw(b"HTTP/1.1 banana\r\n\r\n"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "bad_answer"),
        (many_headers(2_000), "bad_answer"),
    ],
    ids=[
        "reset",
        "closed",
        "not_http",
        "no_status",
        "long_header",
        "cut_off",
        "bad_chunk",
        "bad_length",
        "many_headers",
    ],
)
async def test_a_broken_answer_is_a_failure_with_a_word_for_it(
    receiver: Receiver, behaviour: Behaviour, code: str
) -> None:
    called, _ = await call_once(receiver, behaviour)

    assert called.outcome == ConnectFailed(code)


async def test_a_receiver_that_breaks_new_connections_is_called_once_an_attempt(receiver: Receiver) -> None:
    await call_once(receiver, reset())

    assert receiver.count == 1


async def test_nobody_listening_is_a_refused_connection() -> None:
    # Bound and never listening, so that the port is nobody else's.
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{place.getsockname()[1]}/"
        async with caller() as opened:
            called = await opened.call(endpoint_at(url), uuid4(), b"{}")

    assert called.outcome == ConnectFailed("connection_refused")


async def test_plain_text_where_tls_is_expected_says_so() -> None:
    async def speak_plainly(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    async with server, caller() as opened:
        port = server.sockets[0].getsockname()[1]
        called = await opened.call(endpoint_at(f"https://127.0.0.1:{port}/"), uuid4(), b"{}")

    assert called.outcome == ConnectFailed("tls_failed")


async def test_a_tls_handshake_that_stalls_ends_at_the_deadline(receiver: Receiver) -> None:
    # The receiver waits for the end of a request, which a client's hello is not.
    async with caller(call_seconds=_DEADLINE_SECONDS) as opened:
        called = await opened.call(endpoint_at(f"https://127.0.0.1:{receiver.port}/"), uuid4(), b"{}")

    assert isinstance(called.outcome, TimedOut)


async def test_cookies_are_not_kept(receiver: Receiver) -> None:
    url = receiver.script("/", answer(200, headers={"Set-Cookie": "a=b; Path=/"}))
    async with caller() as opened:
        for _ in range(2):
            await opened.call(endpoint_at(url), uuid4(), b"{}")

    assert ["cookie" in request.headers for request in receiver.requests] == [False, False]


async def test_a_name_that_resolves_to_a_private_address_is_refused_without_a_connection() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    async with open_receiver(port=8443) as inside, caller(lookup=lookup, allow_private=False) as opened:
        called = await opened.call(endpoint_at("http://rebind.example:8443/"), uuid4(), b"{}")

        assert called.outcome == Refused("target_refused")
        assert inside.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8443/",
        "http://[::1]:8443/",
        "http://[::ffff:127.0.0.1]:8443/",
        "http://2130706433:8443/",
        "http://0x7f.1:8443/",
        "http://localhost:8443/",
        "http://user@93.184.216.34:8443/",
        "http://93.184.216.34:22/",
        "ftp://93.184.216.34/",
        "not a url",
    ],
)
async def test_a_url_that_became_forbidden_is_refused_at_the_attempt(url: str) -> None:
    async with open_receiver(port=8443) as inside, caller(allow_private=False) as opened:
        called = await opened.call(endpoint_at(url), uuid4(), b"{}")

        assert called.outcome == Refused("target_refused")
        assert inside.connections == 0


async def test_a_name_is_judged_anew_at_each_look_up() -> None:
    answers = iter([["93.184.216.34"], ["10.0.0.1"]])

    async def lookup(_host: str, _port: int) -> list[str]:
        return next(answers)

    resolver = CheckedResolver(lookup, allow_private=False)
    first = await resolver.resolve("rebind.example", 443)

    assert [each["host"] for each in first] == ["93.184.216.34"]
    with pytest.raises(TargetRefusedError):
        await resolver.resolve("rebind.example", 443)


async def test_a_name_without_an_address_is_told_as_such() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    async with caller(lookup=lookup, allow_private=False) as opened:
        called = await opened.call(endpoint_at("http://nowhere.example/"), uuid4(), b"{}")

    assert called.outcome == ConnectFailed("name_not_resolved")


async def test_a_look_up_that_hangs_ends_at_the_deadline() -> None:
    async def lookup(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with caller(lookup=lookup, call_seconds=_DEADLINE_SECONDS, allow_private=False) as opened:
        called = await opened.call(endpoint_at("http://slow.example/"), uuid4(), b"{}")

    assert isinstance(called.outcome, TimedOut)


async def test_a_megabyte_arrives_whole_and_signed(receiver: Receiver) -> None:
    endpoint = endpoint_at(receiver.script("/", 200))
    body = b'"' + b"x" * (3 << 20) + b'"'
    async with caller() as opened:
        called = await opened.call(endpoint, uuid4(), body)

    assert called.status == 200
    assert receiver.requests[0].body == body
    receiver.requests[0].verified(endpoint.secrets[0])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("9" * 100, None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_both_of_its_forms(text: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(text, now=datetime(2026, 1, 1, tzinfo=UTC)) == seconds
