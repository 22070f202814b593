"""The database as services use it: pooled sessions, queries by name, foreign errors translated once.

A connection that meets a server which can't serve any more (stopping, demoted, gone) is thrown away instead
of being handed out again, and the idle ones beside it are too: asyncpg's own pool sticks to a demoted primary for ever.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import asyncpg

from barnabas.errors import DatabaseUnavailableError, SettingsError, SupersededError, TransientError
from barnabas.postgres.connecting import connect
from barnabas.postgres.queries import query
from barnabas.runtime.crash_points import CrashPoint, reach

T = TypeVar("T")

_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.OperatorInterventionError,  # class 57: shutting down, starting up, crashed, cancelled
    asyncpg.InsufficientResourcesError,  # class 53: disk full, out of memory, too many connections
    asyncpg.ReadOnlySQLTransactionError,  # 25006: a demoted primary
    asyncpg.LockNotAvailableError,  # 55P03: lock_timeout
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# The statement was given up, the connection is as good as before.
_HARMLESS = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
_RETRIED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
# A deadlock's victim tries again at once: the other side has what it wanted by then.
_ATTEMPTS_MAX = 5


class _Connection(asyncpg.Connection):
    """A connection that goes back into the pool as it is, instead of after a statement that resets the session.

    Nothing here sets anything for a session: settings, locks and cursors end with their transaction.
    """

    def get_reset_query(self) -> str:
        """Nothing to reset."""
        return ""


class LeaseOverError(SupersededError):
    """This worker's lease is over: it must go on under a new id."""

    code = "lease_over"


class ConflictError(TransientError):
    """Another transaction was in the way; the same may be tried again at once."""

    code = "conflict"


class Session:
    """One connection for a while: queries by name, inside a transaction or each on its own."""

    __slots__ = ("connection",)

    def __init__(self, connection: Any) -> None:
        self.connection: asyncpg.Connection[asyncpg.Record] = connection

    async def fetch(self, name: str, *args: object) -> list[asyncpg.Record]:
        """All rows of `sql/<name>.sql`."""
        with translated(self.connection):
            return await self.connection.fetch(query(name), *args)

    async def fetchrow(self, name: str, *args: object) -> asyncpg.Record | None:
        """The first row, or None."""
        with translated(self.connection):
            return await self.connection.fetchrow(query(name), *args)

    async def fetchval(self, name: str, *args: object) -> Any:
        """The first column of the first row, or None."""
        with translated(self.connection):
            return await self.connection.fetchval(query(name), *args)

    async def execute(self, name: str, *args: object) -> str:
        """Run it; returns Postgres' command tag."""
        with translated(self.connection):
            return await self.connection.execute(query(name), *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit at the end of the block, roll back if it raises."""
        with translated(self.connection):
            async with self.connection.transaction():
                yield


@dataclass(frozen=True, slots=True)
class Database:
    """A pool for one login. Made by `open_database`."""

    pool: Any
    acquire_seconds: float = 10.0
    wants_primary: bool = False
    """Its address asks for a server that takes writes: a connection whose server says otherwise isn't handed out."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection until the block ends; raises `DatabaseUnavailableError` when there is none in time."""
        connection = await self._acquire()
        try:
            yield Session(connection)
        finally:
            # Shielded: a cancelled caller must not leak the connection.
            await asyncio.shield(self._release(connection))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A session inside one transaction."""
        async with self.session() as session, session.transaction():
            yield session
            reach(CrashPoint.DATABASE_BEFORE_COMMIT)

    @asynccontextmanager
    async def tenant(self, tenant_id: object) -> AsyncIterator[Session]:
        """One transaction that sees one tenant's rows only, for the api login: the setting dies with it."""
        async with self.transaction() as session:
            await session.execute("set_tenant", str(tenant_id))
            if self.wants_primary and _is_read_only(session.connection):
                # Demoted while nobody used this connection: it says so only now, and what it would tell is of the past.
                _throw_away(session.connection)
                raise DatabaseUnavailableError("Postgres: demoted")
            yield session

    async def run(self, step: Callable[[Session], Awaitable[T]]) -> T:
        """One transaction around `step`, again from its start when it was a deadlock's victim."""
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                async with self.transaction() as session:
                    return await step(session)
            except ConflictError:
                if attempt == _ATTEMPTS_MAX:
                    raise
        raise AssertionError("the loop above returns or raises")

    async def fetch(self, name: str, *args: object) -> list[asyncpg.Record]:
        """All rows of one query, in a transaction of its own."""
        async with self.session() as session:
            return await session.fetch(name, *args)

    async def fetchrow(self, name: str, *args: object) -> asyncpg.Record | None:
        """The first row of one query, or None."""
        async with self.session() as session:
            return await session.fetchrow(name, *args)

    async def fetchval(self, name: str, *args: object) -> Any:
        """The first column of the first row of one query, or None."""
        async with self.session() as session:
            return await session.fetchval(name, *args)

    async def execute(self, name: str, *args: object) -> str:
        """Run one query."""
        async with self.session() as session:
            return await session.execute(name, *args)

    async def _acquire(self) -> Any:
        with translated(None):
            connection = await self.pool.acquire(timeout=self.acquire_seconds)
            if self.wants_primary and _is_read_only(connection):
                # Whoever only reads would never be told by an error.
                _throw_away(connection)
                self._throw_idle_away()
                connection = await self.pool.acquire(timeout=self.acquire_seconds)
        return connection

    async def _release(self, connection: Any) -> None:
        is_broken = _is_closed(connection)
        try:
            await self.pool.release(connection, timeout=5)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError):
            # It couldn't be reset, so nobody may get it again; the pool opens another. One that dies while it is given
            # back is an internal error of asyncpg's: it has it back already.
            _throw_away(connection)
            is_broken = True
        if is_broken:
            self._throw_idle_away()

    def _throw_idle_away(self) -> None:
        """Close what nobody uses: it leads to the same server.

        Else each would have to fail, and with a server that says nothing any more each for as long as a command may
        take.
        """
        for holder in self.pool._holders:  # noqa: SLF001 - the pool has no other way to close what is idle
            if holder._con is not None and holder._in_use is None:  # noqa: SLF001
                holder._deactivate_inactive_connection()  # noqa: SLF001


@contextmanager
def translated(connection: Any) -> Iterator[None]:
    """Turn asyncpg's errors into ours, and throw away a connection whose server can't serve."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate == "BB001":
            raise LeaseOverError from error
        if isinstance(error, _RETRIED):
            raise ConflictError(f"Postgres: {type(error).__name__}") from error
        if isinstance(error, _UNAVAILABLE):
            if not isinstance(error, _HARMLESS):
                _throw_away(connection)
            raise DatabaseUnavailableError(f"Postgres: {type(error).__name__} ({error.sqlstate})") from error
        raise
    except asyncpg.InterfaceError as error:
        # asyncpg says so when the connection was closed under a caller's feet.
        _throw_away(connection)
        raise DatabaseUnavailableError(f"Postgres: {error}") from error
    except (asyncpg.InternalClientError, OSError, TimeoutError) as error:
        _throw_away(connection)
        raise DatabaseUnavailableError(f"Postgres: {type(error).__name__}") from error


def _is_closed(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool has taken it back, since it was closed.
        return True


def _is_read_only(connection: Any) -> bool:
    """Whether the server has said, with its last answer, that it is a standby or takes no writes."""
    told = connection.get_settings()
    return "on" in {getattr(told, "in_hot_standby", "off"), getattr(told, "default_transaction_read_only", "off")}


def _throw_away(connection: Any) -> None:
    # The pool takes a connection whose server is gone back by itself, and then lets nobody touch it any more.
    if connection is not None:
        with suppress(asyncpg.InterfaceError):
            connection.terminate()


@asynccontextmanager
async def open_database(
    dsn: str, *, login: Literal["engine", "api"], size_max: int, size_min: int = 0, command_seconds: float = 30.0
) -> AsyncIterator[Database]:
    """A pool of at most `size_max` connections; refuses a login with more rights than a service may have.

    Raises `SettingsError` for a superuser, an owner of the tables or a login that bypasses row security.
    """
    with translated(None):
        pool = await asyncpg.create_pool(
            dsn,
            # Its stubs ask for a signature that no function but asyncpg's own has.
            connect=cast("Any", connect),
            min_size=size_min,
            max_size=size_max,
            command_timeout=command_seconds,
            timeout=10,
            max_inactive_connection_lifetime=0,
            connection_class=_Connection,
            server_settings={"application_name": f"barnabas-{login}"},
        )
    attributes = parse_qs(urlsplit(dsn).query).get("target_session_attrs", [])
    database = Database(pool, wants_primary=bool({"read-write", "primary"} & set(attributes)))
    try:
        await _refuse_too_powerful(database, login)
        yield database
    finally:
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except TimeoutError:
            pool.terminate()


async def _refuse_too_powerful(database: Database, login: str) -> None:
    row = await database.fetchrow("describe_login")
    assert row is not None
    if row["superuser"] or row["bypasses_row_security"] or row["owns_jobs"]:
        raise SettingsError(
            f"the {login} login may not be a superuser, bypass row security or own the tables: "
            f"{row['name']} can; use barnabas_{login}"
        )


def by_key(keys: Sequence[tuple[Any, ...]]) -> list[int]:
    """The order in which rows with these keys are locked everywhere: indexes of `keys`, sorted by key."""
    return sorted(range(len(keys)), key=keys.__getitem__)
