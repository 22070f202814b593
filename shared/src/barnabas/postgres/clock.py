"""The database's clock, by which leases and due times are judged and ids are minted."""

from datetime import datetime

from barnabas.postgres.database import Database
from barnabas.runtime.clock import DatabaseClock


async def open_clock(database: Database) -> DatabaseClock:
    """A clock that is right by the database; `synchronise` it each minute. Raises `DatabaseUnavailableError`."""

    async def read_clock() -> datetime:
        told: datetime = await database.fetchval("read_clock")
        return told

    clock = DatabaseClock(read_clock)
    await clock.synchronise()
    return clock
