"""Connections to Postgres: one address, or several of which one is the primary.

Every connection of a process is made here: the pools', the lease keeper's, the migrations'. asyncpg tries the hosts of
an address one after the other within one time-out, so a host that accepts a connection and then says nothing, as a
frozen primary does, would keep it from ever asking the next. Here the next is asked while the first still thinks.
"""

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

# Longer than a server under load takes to let somebody in, and short against what a failover may take.
_NEXT_HOST_SECONDS = 1.5


def addresses(dsn: str) -> list[str]:
    """The DSN once for each of its hosts, in their order; hosts that are named in its query stay together."""
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    names = hosts.split(",")
    if len(names) < 2 or not all(names):
        return [dsn]
    return [urlunsplit((parts.scheme, login + at + name, parts.path, parts.query, parts.fragment)) for name in names]


async def connect(dsn: str, *, timeout: float, **settings: Any) -> Any:
    """The first of the DSN's hosts that lets us in and is what its `target_session_attrs` asks for.

    `settings` are asyncpg's. Raises what the last host's refusal was, asyncpg's error or `OSError`; `TimeoutError`
    when none had answered after `timeout` seconds.
    """
    asked: set[asyncio.Task[Any]] = set()
    failure: BaseException | None = None
    try:
        async with asyncio.timeout(timeout):
            for address in addresses(dsn):
                asked.add(asyncio.ensure_future(asyncpg.connect(address, timeout=timeout, **settings)))
                ended, _ = await asyncio.wait(asked, timeout=_NEXT_HOST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                connection, failure = _winner(ended, asked, failure)
                if connection is not None:
                    return connection
            while asked:
                ended, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                connection, failure = _winner(ended, asked, failure)
                if connection is not None:
                    return connection
    finally:
        for task in asked:
            task.cancel()
            task.add_done_callback(_let_go)
    assert failure is not None, "each host was asked, and none let us in"
    raise failure


def _winner(
    ended: set[asyncio.Task[Any]], asked: set[asyncio.Task[Any]], failure: BaseException | None
) -> tuple[Any, BaseException | None]:
    """A connection among those that ended, if there is one, and the last refusal; the others stay in `asked`."""
    for task in ended:
        asked.discard(task)
        if task.exception() is None:
            # A second one that answered in the same moment is still in `ended` and nowhere else.
            for other in ended - {task}:
                asked.discard(other)
                _let_go(other)
            return task.result(), failure
        failure = task.exception()
    return None, failure


def _let_go(task: "asyncio.Task[Any]") -> None:
    """Close what somebody let us into although another one was quicker."""
    with suppress(asyncio.CancelledError):
        if task.exception() is None:
            task.result().terminate()
