"""Roles and the database, on any Postgres: the local one, a test's, or one that already runs.

Three logins with no more rights than their part needs, none of them a superuser and none above row-level security:
`barnabas_owner` migrates, `barnabas_engine` acts for many tenants at once, `barnabas_api` for one at a time.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

from barnabas_local.errors import LocalStackError

DATABASE: Final = "barnabas"
OWNER: Final = "barnabas_owner"
ENGINE: Final = "barnabas_engine"
API: Final = "barnabas_api"

# Logins and the database are rows of the whole cluster: two programs that prepare them at once would fail on each
# other's update.
_ADVISORY_LOCK = 0x6261726E
_CONNECT_SECONDS = 10
_STATEMENT_SECONDS = 60

_ROLE_SETTINGS: Mapping[str, Mapping[str, str]] = {
    OWNER: {},
    ENGINE: {
        # Plans for batches from unnest(): a custom plan, or one made while a table was empty, scans whole tables.
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        # No statement of a batch takes a second; one that takes thirty is stuck, and its batch is tried again.
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "30s",
        # A transaction is one statement or a few: longer, it only holds up vacuum and locks.
        "transaction_timeout": "60s",
    },
    API: {
        # Somebody waits on the other side of HTTP.
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "10s",
        "transaction_timeout": "20s",
    },
}


@dataclass(frozen=True, slots=True)
class Logins:
    """How each part reaches one database. The addresses hold passwords: never log them."""

    owner_dsn: str
    engine_dsn: str
    api_dsn: str


async def prepare_database(
    superuser_dsn: str, *, database: str = DATABASE, template: str | None = None, secret: str | None = None
) -> Logins:
    """Make the three logins and the database, or bring what exists to the same state; a second call changes nothing.

    `superuser_dsn` needs not be a superuser's: CREATEROLE and CREATEDB are enough. The logins' passwords are derived
    from its password, or from `secret` where it has none, so that every program that may prepare the server arrives
    at the same ones. `template` is a database without connections, copied if `database` doesn't exist yet.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", database):
        raise LocalStackError(f"not a database name that needs no quoting: {database!r}")
    passwords = _passwords(superuser_dsn, secret=secret)
    connection = await _connect(superuser_dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _ADVISORY_LOCK)
        for role, settings in _ROLE_SETTINGS.items():
            await _ensure_role(connection, role, password=passwords[role], settings=settings)
        await _ensure_database(connection, database, template=template)
        await connection.execute("SELECT pg_advisory_unlock($1)", _ADVISORY_LOCK)
    finally:
        await connection.close()
    return Logins(*(_dsn_for(superuser_dsn, role, passwords[role], database) for role in (OWNER, ENGINE, API)))


async def drop_database(superuser_dsn: str, database: str) -> None:
    """Drop a database, its connections included; the logins stay."""
    connection = await _connect(superuser_dsn)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    finally:
        await connection.close()


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS, command_timeout=_STATEMENT_SECONDS)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as failure:
        # The address without its login and password.
        where = urlsplit(dsn).netloc.rpartition("@")[2]
        raise LocalStackError(f"Postgres at {where or 'the given address'} can't be used: {failure}") from failure


async def _ensure_role(
    connection: "asyncpg.Connection[asyncpg.Record]", role: str, *, password: str, settings: Mapping[str, str]
) -> None:
    found = await connection.fetchrow(
        "SELECT rolsuper OR rolbypassrls OR rolcreaterole AS mighty FROM pg_roles WHERE rolname = $1", role
    )
    if found is not None and found["mighty"]:
        raise LocalStackError(f"the login {role} exists and has more rights than it may have; take them from it")
    # What reaches the server, and possibly its log, is the verifier; the password itself never does.
    verifier = await asyncio.to_thread(_scram_verifier, password)
    verb = "CREATE" if found is None else "ALTER"
    await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{verifier}'")
    for name, value in settings.items():
        await connection.execute(f"ALTER ROLE {role} SET {name} = '{value}'")


async def _ensure_database(
    connection: "asyncpg.Connection[asyncpg.Record]", database: str, *, template: str | None
) -> None:
    owner = await connection.fetchval("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", database)
    if owner not in {None, OWNER}:
        raise LocalStackError(f"the database {database} exists and belongs to {owner}, not to {OWNER}")
    if not await connection.fetchval("SELECT pg_has_role(current_user, $1, 'SET')", OWNER):
        # Not a superuser: it may hand a database only to a role that it may become.
        await connection.execute(f"GRANT {OWNER} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE")
    if owner is None:
        # template0 has no local additions, so the order of text is what we say and not what the machine's locale is.
        how = template or "template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C' ENCODING 'UTF8'"
        try:
            await connection.execute(f"CREATE DATABASE {database} OWNER {OWNER} TEMPLATE {how}")
        except asyncpg.DuplicateDatabaseError:
            # Another program made the same one in between: it is as good as ours.
            pass
    await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
    await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {ENGINE}, {API}")


def _passwords(superuser_dsn: str, *, secret: str | None) -> dict[str, str]:
    root = unquote(urlsplit(superuser_dsn).password or "") or secret
    if not root:
        raise LocalStackError("the Postgres address has no password, and no other secret was given to derive one from")
    # Slow on purpose: somebody who learns one login's password must not be able to guess the superuser's from it.
    key = hashlib.scrypt(root.encode(), salt=b"barnabas logins", n=2**14, r=8, p=1)
    return {
        role: base64.urlsafe_b64encode(hmac.digest(key, role.encode(), "sha256")).decode().rstrip("=")
        for role in _ROLE_SETTINGS
    }


def _scram_verifier(password: str) -> str:
    """What Postgres stores for a password (RFC 5803), computed here; `password` is plain ASCII."""
    rounds = 4096
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, rounds)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(b).decode() for b in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${rounds}:{salt_text}${stored_text}:{server_text}"


def _dsn_for(superuser_dsn: str, role: str, password: str, database: str) -> str:
    parts = urlsplit(superuser_dsn)
    hosts = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"{role}:{quote(password, safe='')}@{hosts}", f"/{database}", parts.query, ""))
