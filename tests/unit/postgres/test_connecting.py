"""The addresses of one DSN, and which of its hosts is taken when some refuse and some say nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from barnabas.postgres.connecting import addresses, connect


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:p@a/db", ["postgresql://u:p@a/db"]),
        (
            "postgresql://u:p%2C@a,b:6000/db?target_session_attrs=read-write",
            [
                "postgresql://u:p%2C@a/db?target_session_attrs=read-write",
                "postgresql://u:p%2C@b:6000/db?target_session_attrs=read-write",
            ],
        ),
        ("postgresql://u@[::1]:1,[::2]:2/db", ["postgresql://u@[::1]:1/db", "postgresql://u@[::2]:2/db"]),
        ("postgresql:///db?host=a,b&port=1,2", ["postgresql:///db?host=a,b&port=1,2"]),
        ("postgresql://a,b/db", ["postgresql://a/db", "postgresql://b/db"]),
    ],
)
def test_each_host_has_an_address_of_its_own(dsn: str, expected: list[str]) -> None:
    assert addresses(dsn) == expected


@asynccontextmanager
async def silent_host() -> AsyncIterator[int]:
    """Takes connections and never says a word, as a frozen server does."""
    writers: list[asyncio.StreamWriter] = []

    async def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_hosts_that_all_say_nothing_are_a_time_out() -> None:
    async with silent_host() as one, silent_host() as other:
        with pytest.raises(TimeoutError):
            await connect(f"postgresql://u:p@127.0.0.1:{one},127.0.0.1:{other}/db", timeout=0.2)


async def test_a_host_that_refuses_says_why_when_no_other_is_left() -> None:
    with socket.socket() as held:
        # Bound, so that it is nobody else's, and nobody listens on it.
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]

        with pytest.raises(OSError, match=r"(?i)connect"):
            await connect(f"postgresql://u:p@127.0.0.1:{port},127.0.0.1:{port}/db", timeout=60.0)
