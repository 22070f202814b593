"""Names to addresses, checked: no call is ever connected to an address that this module has not judged.

A name with one refused answer is refused as a whole: an attacker who mixes public and private answers gets neither. The
answer is judged at each look-up, so a name that is bound to another address later is caught then.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from barnabas.domain.targets import refusal

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host, for a connection to that port; raises `OSError` when there are none."""

# A tenant whose names hang may fill its share of the calls; its look-ups must leave threads to the others.
_THREADS = 256
# More answers than this serve no receiver, only one who wants many connections made.
_ADDRESSES_MAX = 8


class TargetRefusedError(OSError):
    """An address that no webhook may be sent to. Says nothing about which: the text is shown to tenants."""

    def __init__(self) -> None:
        super().__init__("the target is refused")


class SystemLookup:
    """The machine's own resolver, in threads of its own: those of the event loop are for others."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lookup")

    async def __call__(self, host: str, port: int) -> list[str]:
        """All addresses of the host."""
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(str(answer[4][0]) for answer in answers))

    def close(self) -> None:
        """Forget the look-ups that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CheckedResolver(AbstractResolver):
    """What aiohttp asks before it connects."""

    def __init__(self, lookup: Lookup, *, allow_private: bool) -> None:
        self._lookup = lookup
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses; raises `TargetRefusedError` when one of them is refused."""
        addresses = await self._lookup(host, port)
        if not addresses:
            raise OSError(None, "no address")
        if any(refusal(address, allow_private=self._allow_private) is not None for address in addresses):
            raise TargetRefusedError
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                # An address goes on to the socket as it was judged, without another look-up.
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses[:_ADDRESSES_MAX]
        ]

    async def close(self) -> None:
        """Nothing is held."""


def checked_socket(allow_private: bool) -> Callable[[tuple[object, ...]], socket.socket]:
    """A socket factory that judges each address where the connection is made; literal ones pass no resolver."""

    def make(addr_info: tuple[object, ...]) -> socket.socket:
        family, kind, protocol, _, address = addr_info
        assert isinstance(address, tuple)
        if refusal(str(address[0]), allow_private=allow_private) is not None:
            raise TargetRefusedError
        made = socket.socket(family, kind, protocol)  # type: ignore[arg-type]  # the tuple is getaddrinfo's, its types aren't told
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    return make


def _getaddrinfo(
    host: str, port: int
) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)  # type: ignore[return-value]  # wider than its stub
