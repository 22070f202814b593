"""One HTTP call to an address that a tenant chose, for the built-in `http_request`.

The worker must not become a way into the network it runs in: the target is judged when its URL is parsed, and every
address that its name resolves to when the connection is made. Redirects are not followed, and answers are bounded.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from barnabas.domain.targets import BadTargetError, Target, refusal

BODY_BYTES_MAX = 65_536
"""How much of an answer is kept: enough to see what went wrong, far below what a result may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the target said; `body` is cut at 64 KiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_truncated: bool


class GuardedResolver(AbstractResolver):
    """Resolves names by the system's resolver and refuses a name with any address that must not be called."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address of `host`; raises `BadTargetError` when one is refused, `OSError` when there is none."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = [(found_family, proto, str(address[0])) for found_family, _, proto, _, address in found]
        # One bad address refuses the name: a second question could pick that one.
        if any(refusal(address, allow_private=self._allow_private) for _, _, address in addresses):
            raise BadTargetError("refused_address", "the host's address is not a public one")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=found_family, proto=proto, flags=0)
            for found_family, proto, address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def call(
    method: str,
    target: Target,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout_seconds: float,
    allow_private: bool,
) -> Answer:
    """Make the call, from the name's resolution to the answer's last byte within `timeout_seconds`.

    Raises `TimeoutError`, `BadTargetError`, or an `aiohttp.ClientError` where there was no answer.
    """
    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(allow_private=allow_private), use_dns_cache=False, limit=1, force_close=True
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            # A compressed answer could be a thousand times what it looks like, so none is asked for nor unpacked.
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session,
        session.request(
            method,
            URL(target.url, encoded=True),
            headers={**headers, "Accept-Encoding": "identity"},
            data=body,
            allow_redirects=False,
        ) as response,
    ):
        kept = bytearray()
        async for chunk in response.content.iter_any():
            kept += chunk
            if len(kept) > BODY_BYTES_MAX:
                break
        return Answer(
            status=response.status,
            headers=response.headers,
            body=bytes(kept[:BODY_BYTES_MAX]),
            is_truncated=len(kept) > BODY_BYTES_MAX,
        )
