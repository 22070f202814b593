"""Requests that two servers in a row could read in two ways, and requests that never end: over raw sockets."""

import asyncio
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from tests.integration.ingest.support import Caller, RunningIngest, running_ingest
from tests.support.eventually import eventually
from tests.support.world import World

JOB = b'{"type":"echo","payload":1}'


@pytest.fixture(scope="module")
async def hasty(module_world: World) -> AsyncIterator[RunningIngest]:
    """An ingest that waits for a request only two seconds: when it stands still for longer itself, that is excused."""
    async with running_ingest(module_world.kafka, module_world.logins, request_seconds="2") as running:
        yield running


async def _exchange(port: int, data: bytes) -> bytes:
    """Send, and read until the server closes; fails if it doesn't."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


def _post(head: bytes, body: bytes = JOB, key: str = "") -> bytes:
    return b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nX-API-Key: " + key.encode() + b"\r\n" + head + b"\r\n" + body


_CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOB), JOB)
_LENGTH = b"Content-Length: %d\r\n" % len(JOB)

CORPUS: dict[str, bytes] = {
    "length and chunked": _post(_LENGTH + b"Transfer-Encoding: chunked\r\n", _CHUNKED),
    "chunked and length": _post(b"Transfer-Encoding: chunked\r\n" + _LENGTH, _CHUNKED),
    "chunked and length 0": _post(b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", _CHUNKED),
    "two lengths that differ": _post(_LENGTH + b"Content-Length: 3\r\n"),
    "two lengths that agree": _post(_LENGTH + _LENGTH),
    "a list of lengths": _post(b"Content-Length: %d, %d\r\n" % (len(JOB), len(JOB))),
    "a length with a sign": _post(b"Content-Length: +%d\r\n" % len(JOB)),
    "a length below 0": _post(b"Content-Length: -1\r\n"),
    "a length in hexadecimal": _post(b"Content-Length: 0x1b\r\n"),
    "a length too large for any number": _post(b"Content-Length: 99999999999999999999999\r\n"),
    "a length that is empty": _post(b"Content-Length: \r\n"),
    "chunked twice": _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", _CHUNKED),
    "chunked and another": _post(b"Transfer-Encoding: chunked, identity\r\n", _CHUNKED),
    "gzip and chunked": _post(b"Transfer-Encoding: gzip, chunked\r\n", _CHUNKED),
    "not quite chunked": _post(b"Transfer-Encoding: xchunked\r\n", _CHUNKED),
    "chunked in quotes": _post(b'Transfer-Encoding: "chunked"\r\n', _CHUNKED),
    "identity": _post(b"Transfer-Encoding: identity\r\n" + _LENGTH),
    "a vertical tab before chunked": _post(b"Transfer-Encoding: \x0bchunked\r\n", _CHUNKED),
    "a space before the colon": _post(b"Transfer-Encoding : chunked\r\n" + _LENGTH, _CHUNKED),
    "a folded header": _post(b"Transfer-Encoding:\r\n chunked\r\n" + _LENGTH, _CHUNKED),
    "a header that begins with a space": _post(b" Transfer-Encoding: chunked\r\n" + _LENGTH, _CHUNKED),
    "NUL in a header": _post(b"X-A: a\x00b\r\n" + _LENGTH),
    "a bare carriage return in a header": _post(b"X-A: a\rTransfer-Encoding: chunked\r\n" + _LENGTH),
    "a header without a colon": _post(b"nonsense\r\n" + _LENGTH),
    "a header without a name": _post(b": x\r\n" + _LENGTH),
    "a chunk size with a sign": _post(b"Transfer-Encoding: chunked\r\n", b"+1b\r\n" + JOB + b"\r\n0\r\n\r\n"),
    "a chunk size with 0x": _post(b"Transfer-Encoding: chunked\r\n", b"0x1b\r\n" + JOB + b"\r\n0\r\n\r\n"),
    "a chunk size that is empty": _post(b"Transfer-Encoding: chunked\r\n", b"\r\n" + JOB + b"\r\n0\r\n\r\n"),
    "a chunk size without end": _post(b"Transfer-Encoding: chunked\r\n", b"f" * 32 + b"\r\n" + JOB),
    "a chunk longer than its size": _post(b"Transfer-Encoding: chunked\r\n", b"5\r\n" + JOB + b"\r\n0\r\n\r\n"),
    "a chunk that ends in a bare newline": _post(b"Transfer-Encoding: chunked\r\n", b"1b\n" + JOB + b"\n0\n\n"),
    "no host": b"POST /v1/jobs HTTP/1.1\r\n" + _LENGTH + b"\r\n" + JOB,
    "two hosts": _post(b"Host: b\r\n" + _LENGTH),
    "a host with a space": b"POST /v1/jobs HTTP/1.1\r\nHost: a b\r\n" + _LENGTH + b"\r\n" + JOB,
    "another version": b"POST /v1/jobs HTTP/3.7\r\nHost: a\r\n" + _LENGTH + b"\r\n" + JOB,
    "chunked in 1.0": b"POST /v1/jobs HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKED,
    "no version": b"POST /v1/jobs\r\n\r\n",
    "a method that is none": b"PO ST /v1/jobs HTTP/1.1\r\nHost: a\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
async def test_an_ambiguous_request_gets_one_400_and_the_connection_ends(ingest: RunningIngest, name: str) -> None:
    tenant = await ingest.tenant()
    assert tenant.key is not None
    attack = CORPUS[name].replace(b"X-API-Key: ", b"X-API-Key: " + tenant.key.encode())
    hidden = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

    answer = await _exchange(ingest.port, attack + hidden)

    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer
    assert (await tenant.get("/v1/jobs")).body["items"] == []


async def test_a_bad_request_behind_a_good_one_does_not_take_its_answer(ingest: RunningIngest) -> None:
    tenant = await ingest.tenant()
    assert tenant.key is not None
    good = _post(_LENGTH, key=tenant.key)

    answer = await _exchange(ingest.port, good + CORPUS["length and chunked"])

    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert b"HTTP/1.1 400 " in answer
    assert len((await tenant.get("/v1/jobs")).body["items"]) == 1


async def test_pipelined_requests_are_answered_in_order(ingest: RunningIngest) -> None:
    tenant = await ingest.tenant()
    assert tenant.key is not None
    last = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    answer = await _exchange(ingest.port, _post(_LENGTH, key=tenant.key) * 3 + last)

    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"202", b"202", b"202", b"404"]


async def test_a_chunked_body_is_read_and_its_trailers_are_not_headers(ingest: RunningIngest) -> None:
    tenant = await ingest.tenant()
    assert tenant.key is not None
    trailer = b"%x\r\n%b\r\n0\r\nIdempotency-Key: smuggled\r\n\r\n" % (len(JOB), JOB)
    request = _post(b"Transfer-Encoding: chunked\r\nConnection: close\r\n", trailer, key=tenant.key)

    answers = [await _exchange(ingest.port, request) for _ in range(2)]

    assert all(answer.startswith(b"HTTP/1.1 202 ") for answer in answers)
    assert len((await tenant.get("/v1/jobs")).body["items"]) == 2


async def test_too_many_headers_are_refused(ingest: RunningIngest) -> None:
    answer = await _exchange(ingest.port, _post(b"X-A: b\r\n" * 100_000))

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_header_without_end_is_refused(ingest: RunningIngest) -> None:
    answer = await _exchange(ingest.port, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 400_000)

    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_an_upgrade_is_ignored_and_what_follows_is_not_read(ingest: RunningIngest) -> None:
    request = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    answer = await _exchange(ingest.port, request + b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")

    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "begun",
    [b"", b"POST /v1/jobs HT", b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\n", _post(b"Content-Length: 1000\r\n", b"{")],
    ids=["nothing", "a line", "headers", "a body"],
)
async def test_a_request_that_does_not_arrive_is_given_up(
    ingest: RunningIngest, hasty: RunningIngest, begun: bytes
) -> None:
    tenant = await ingest.tenant()
    assert tenant.key is not None
    began = time.monotonic()

    answer = await _exchange(hasty.port, begun.replace(b"X-API-Key: ", b"X-API-Key: " + tenant.key.encode()))

    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began > 1.9


async def test_a_request_that_drips_is_given_up(hasty: RunningIngest) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port)

    async def drip() -> None:
        writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\n")
        while not writer.is_closing():
            writer.write(b"X-A: b\r\n")
            await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(60):
            answer = await reader.read()
    finally:
        dripping.cancel()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_waiting_request_is_not_a_slow_one(ingest: RunningIngest, hasty: RunningIngest) -> None:
    tenant = await ingest.tenant()
    job_id = await tenant.submit(1)
    there = Caller(tenant._http, hasty.url, tenant.key)

    reply = await there.get(f"/v1/jobs/{job_id}?wait=4")

    assert (reply.status, reply.body["status"]) == (200, "queued")


async def test_an_answer_that_nobody_reads_does_not_stay(ingest: RunningIngest, hasty: RunningIngest) -> None:
    tenant = await ingest.tenant()
    assert tenant.key is not None
    for _ in range(8):
        await tenant.submit(1, metadata={"x": "y" * 4000})
    request = b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nX-API-Key: " + tenant.key.encode() + b"\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port, limit=1024)
    try:
        # Megabytes of answers, and nobody to take them: more than the sockets' buffers hold.
        writer.write(request * 2_000)
        ours = writer.get_extra_info("sockname")
        assert await reader.readexactly(12) == b"HTTP/1.1 200"

        def held() -> list[object]:
            connections = psutil.Process().net_connections("tcp")
            return [each for each in connections if each.raddr == ours and each.status == psutil.CONN_ESTABLISHED]

        assert held()
        await eventually(held, until=lambda connections: not connections)
    finally:
        writer.transport.abort()
    assert not reader.at_eof()
