"""The model database as services see it: sessions and transactions that are away, aborted, hung or forgotten.

Each statement, and each transaction, happens at one moment: everything is serialised. Around it are the ways in which a
real one fails: it never arrives, it is rolled back, or it is committed and nobody hears of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.database import ConflictError
from barnabas.runtime.crash_points import CrashPoint, reach
from tests.simulator.loop import Process, VirtualLoop
from tests.simulator.statements_deliveries import ModelStatements
from tests.simulator.tables import at

T = TypeVar("T")

_CONFLICTS_MAX = 5
# A statement that hangs is given up by its client after so long; the real limit is 30 s.
_HANG_SECONDS = 8.0
# Statements that wait for several locks: only those can be a deadlock's victim.
_LOCKING = frozenset({"turn_jobs", "accept_jobs", "accept_keyed_jobs", "park_backlog"})


@dataclass(slots=True)
class DatabaseFaults:
    """How often which failure happens, and what is away until when."""

    lost_requests: float = 0.0
    """The statement never arrives; its connection is gone."""
    lost_answers: float = 0.0
    """It is committed, and its connection is gone."""
    conflicts: float = 0.0
    """It is a deadlock's victim."""
    hangs: float = 0.0
    """Its answer, or itself, is on its way for seconds, and then its connection is gone."""
    away_until: float = 0.0
    cut_until: dict[str, float] = field(default_factory=dict)
    """By the name of a process that can't reach Postgres."""


class ModelServer:
    """One server for all processes."""

    def __init__(self, loop: VirtualLoop, random: Random, statements: ModelStatements) -> None:
        self.loop = loop
        self.statements = statements
        self.faults = DatabaseFaults()
        self._random = random

    def stop_for(self, seconds: float) -> None:
        """It is away for so long; what is in flight is lost, its answers at least."""
        self.faults.away_until = max(self.faults.away_until, self.loop.now + seconds)
        self.statements.started_at = at(self.faults.away_until)

    def is_away_for(self, process: Process) -> bool:
        """Whether that process can't reach it."""
        now = self.loop.now
        return now < self.faults.away_until or now < self.faults.cut_until.get(process.name, 0.0)

    async def arrive(self, process: Process, name: str = "") -> None:
        """A request travels; raises when it doesn't arrive. `name` is the statement's, empty for a transaction's."""
        faults, random = self.faults, self._random
        if self.is_away_for(process):
            # Refused at once, or a time-out of the connection.
            await self.loop.sleep(random.choice((0.001, 0.05, 1.0)))
            raise DatabaseUnavailableError("the model is away")
        await self.loop.sleep(0.0003 + 0.004 * random.random() ** 3)
        if self.is_away_for(process) or random.random() < faults.lost_requests:
            raise DatabaseUnavailableError("the request was lost")
        if faults.hangs and random.random() < faults.hangs:
            await self._hang(process)
        if random.random() < faults.conflicts and (not name or name in _LOCKING):
            raise ConflictError("a deadlock's victim")

    async def answer(self, process: Process) -> None:
        """An answer travels back; raises when it doesn't arrive."""
        if self._random.random() < self.faults.lost_answers:
            raise DatabaseUnavailableError("the answer was lost")
        await self.loop.sleep(0.0003 + 0.004 * self._random.random() ** 3)
        if self.is_away_for(process):
            raise DatabaseUnavailableError("the answer was lost with its server")

    async def _hang(self, process: Process) -> None:
        await self.loop.sleep(_HANG_SECONDS * self._random.random())
        if self.is_away_for(process) or self._random.random() < 0.5:
            raise DatabaseUnavailableError("the statement was given up")

    def execute(self, name: str, args: tuple[Any, ...]) -> list[Any]:
        """One statement, now."""
        statement: Callable[..., list[Any]] = getattr(self.statements, name)
        return statement(*args)


class ModelConnection:
    """As much of a connection as anybody looks at."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed


class ModelSession:
    """A session of one process: statements each on its own, or in one transaction."""

    def __init__(self, server: ModelServer, process: Process) -> None:
        self.connection = ModelConnection()
        self._server = server
        self._process = process
        self._in_transaction = False

    async def fetch(self, name: str, *args: object) -> list[Any]:
        if self._in_transaction:
            return self._server.execute(name, args)
        self._check()
        try:
            await self._server.arrive(self._process, name)
            rows = self._server.execute(name, args)
            await self._server.answer(self._process)
        except (DatabaseUnavailableError, asyncio.CancelledError):
            self.connection.closed = True
            raise
        return rows

    async def fetchrow(self, name: str, *args: object) -> Any:
        rows = await self.fetch(name, *args)
        return rows[0] if rows else None

    async def fetchval(self, name: str, *args: object) -> Any:
        rows = await self.fetch(name, *args)
        return rows[0][0] if rows else None

    async def execute(self, name: str, *args: object) -> str:
        return f"{len(await self.fetch(name, *args))}"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        assert not self._in_transaction, "nothing here needs a savepoint"
        self._check()
        tables = self._server.statements.tables
        try:
            await self._server.arrive(self._process)
            before, steps = tables.remembered(), self._server.loop.steps
            self._in_transaction = True
            try:
                yield
                reach(CrashPoint.DATABASE_BEFORE_COMMIT)
                # A transaction that waited for something else would have to be isolated from what happened meanwhile.
                assert self._server.loop.steps == steps, "a transaction waits for its own statements only"
            except BaseException:
                tables.restore(before)
                raise
            finally:
                self._in_transaction = False
            await self._server.answer(self._process)
        except (DatabaseUnavailableError, asyncio.CancelledError):
            self.connection.closed = True
            raise

    def _check(self) -> None:
        if self.connection.closed:
            raise DatabaseUnavailableError("the connection is gone")


class ModelDatabase:
    """What `postgres.database.Database` is to a process."""

    def __init__(self, server: ModelServer, process: Process) -> None:
        self._server = server
        self._process = process

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ModelSession]:
        if self._server.is_away_for(self._process):
            await self._server.loop.sleep(0.01)
            raise DatabaseUnavailableError("the model is away")
        yield ModelSession(self._server, self._process)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[ModelSession]:
        async with self.session() as session, session.transaction():
            yield session

    @asynccontextmanager
    async def tenant(self, _tenant_id: object) -> AsyncIterator[ModelSession]:
        async with self.transaction() as session:
            yield session

    async def run(self, step: Callable[[Any], Awaitable[T]]) -> T:
        for attempt in range(1, _CONFLICTS_MAX + 1):
            try:
                async with self.transaction() as session:
                    return await step(session)
            except ConflictError:
                if attempt == _CONFLICTS_MAX:
                    raise
        raise AssertionError("the loop above returns or raises")

    async def fetch(self, name: str, *args: object) -> list[Any]:
        async with self.session() as session:
            return await session.fetch(name, *args)

    async def fetchrow(self, name: str, *args: object) -> Any:
        async with self.session() as session:
            return await session.fetchrow(name, *args)

    async def fetchval(self, name: str, *args: object) -> Any:
        async with self.session() as session:
            return await session.fetchval(name, *args)

    async def execute(self, name: str, *args: object) -> str:
        async with self.session() as session:
            return await session.execute(name, *args)
