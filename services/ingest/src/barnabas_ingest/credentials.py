"""Who is asking: API keys and the admin key, checked without a question to Postgres for each request.

A key's answer is remembered for 4 s, so a revoked key is refused within 5. What is remembered is keyed by a hash of the
credential: nothing in memory is a secret.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from barnabas.contract.problems import ProblemError, refused
from barnabas.domain.keys import matches, parse_key
from barnabas.errors import BarnabasError, DatabaseUnavailableError
from barnabas.postgres.database import Database
from barnabas.postgres.tenants import find_api_key

# Below the promised 5 s by what a refresh and a slow loop may take.
_REMEMBERED_SECONDS = 4.0
_REMEMBERED_MAX = 20_000

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Answer:
    tenant_id: UUID | None
    until: float


class Credentials:
    """Checks credentials; one per process."""

    def __init__(self, database: Database, *, admin_key: str) -> None:
        self._database = database
        self._admin = _digest(admin_key.encode())
        self._answers: dict[bytes, _Answer] = {}
        self._asked: dict[bytes, asyncio.Future[UUID | None]] = {}

    async def tenant_of(self, headers: Headers) -> UUID:
        """The tenant behind a request's credential; raises `ProblemError` (401) for none or a wrong one."""
        credential = _credential(headers)
        if credential is None:
            raise _unauthorized()
        return await self.tenant_of_key(credential)

    async def tenant_of_key(self, credential: bytes) -> UUID:
        """The tenant behind a key's text; raises `ProblemError` (401)."""
        digest = _digest(credential)
        answer = self._answers.get(digest)
        if answer is not None and answer.until > time.monotonic():
            tenant_id = answer.tenant_id
        else:
            tenant_id = await self._ask(credential, digest)
        if tenant_id is None:
            raise _unauthorized()
        return tenant_id

    def check_admin(self, headers: Headers) -> None:
        """Raise `ProblemError` (401) unless the credential is the admin key."""
        credential = _credential(headers)
        if credential is None or not hmac.compare_digest(_digest(credential), self._admin):
            raise _unauthorized()

    async def _ask(self, credential: bytes, digest: bytes) -> UUID | None:
        parsed = parse_key(credential.decode("latin-1"))
        if parsed is None:
            return None  # its check digits are wrong: a typo, or no key of ours
        asked = self._asked.get(digest)
        if asked is not None:
            # Sixty-four connections with the same key ask once.
            return await asyncio.shield(asked)
        asked = self._asked[digest] = asyncio.get_running_loop().create_future()
        try:
            found = await find_api_key(self._database, parsed.key_id)
            tenant_id = found[0] if found is not None and matches(found[1], parsed.secret) else None
            self._remember(digest, tenant_id)
            asked.set_result(tenant_id)
            return tenant_id
        except BaseException as error:
            away = error if isinstance(error, BarnabasError) else DatabaseUnavailableError()
            asked.set_exception(away)
            asked.exception()  # it may be that nobody else waits
            raise
        finally:
            del self._asked[digest]

    def _remember(self, digest: bytes, tenant_id: UUID | None) -> None:
        if len(self._answers) >= _REMEMBERED_MAX:
            now = time.monotonic()
            self._answers = {key: answer for key, answer in self._answers.items() if answer.until > now}
            if len(self._answers) >= _REMEMBERED_MAX:
                self._answers.clear()
        self._answers[digest] = _Answer(tenant_id, time.monotonic() + _REMEMBERED_SECONDS)


def bearer(value: bytes) -> bytes:
    """The credential in an Authorization value, with or without its scheme."""
    scheme, _, rest = value.strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else value.strip()


def _credential(headers: Headers) -> bytes | None:
    value = headers.get(b"authorization")
    if value is not None:
        scheme, _, rest = value.partition(b" ")
        return rest.strip() if scheme.lower() == b"bearer" else None
    return headers.get(b"x-api-key")


def _digest(credential: bytes) -> bytes:
    return hashlib.sha256(credential).digest()


def _unauthorized() -> ProblemError:
    return refused("unauthorized")
