"""A process that takes webhooks and notes when each came: prints its port, and at the end of stdin what it noted.

It answers 204 to whatever comes and reads nothing but the job's id, so that the time noted is the time of arrival.
"""

import asyncio
import re
import sys
import time
from typing import Any

import msgspec
import uvloop

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_ID = re.compile(rb'"data":\{"id":"([0-9a-f-]{36})"')


class Arrivals(msgspec.Struct):
    """Job id -> wall clock of the first webhook about it."""

    by_job: dict[str, float]
    requests: int


class _Sink(asyncio.Protocol):
    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._buffer = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            complete = end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._buffer) < complete:
                return
            found = _ID.search(bytes(self._buffer[end:complete]))
            del self._buffer[:complete]
            self._transport.write(_ANSWER)
            self._arrivals.requests += 1
            if found is not None:
                self._arrivals.by_job.setdefault(found[1].decode(), now)


async def main() -> None:
    """Serve until stdin ends."""
    arrivals = Arrivals({}, 0)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Sink(arrivals), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()
    sys.stdout.buffer.write(msgspec.json.encode(arrivals))


if __name__ == "__main__":
    uvloop.run(main())
