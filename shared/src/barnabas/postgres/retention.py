"""Retention: days made ahead, days that are over dropped, and the few things that are deleted row by row, in chunks."""

from dataclasses import dataclass
from datetime import date, timedelta

from barnabas.postgres.database import Database

# Small enough that no row stays locked for longer than a hot statement takes.
CHUNK_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Partition:
    """One day of one table."""

    parent: str
    day: date


async def make_partitions(database: Database) -> list[str]:
    """Make the days around today that are missing; returns their names.

    Raises `DatabaseUnavailableError` when a lock couldn't be had within a second: try again.
    """
    return [row["name"] for row in await database.fetch("make_partitions")]


async def list_old_partitions(database: Database, *, kept_days: int) -> list[Partition]:
    """Days that ended more than `kept_days` ago, in the order in which they may be dropped."""
    return [Partition(*row) for row in await database.fetch("list_old_partitions", kept_days)]


async def drop_partition(database: Database, partition: Partition, *, seconds: float = 900.0) -> bool:
    """Drop one day of one table; false when something open still needs it. Payloads of open jobs are copied aside.

    That may look through a whole day: this one transaction may last `seconds`, whatever the login's own limits are.
    """
    async with database.transaction() as session:
        await session.execute("allow_long_statement", str(int(seconds * 1_000)))
        return bool(await session.fetchval("drop_partition", partition.parent, partition.day))


async def delete_old_idempotency_keys(database: Database, *, age_hours: float) -> int:
    """Delete one chunk; returns how many, fewer than a chunk when that was all."""
    return _count(await database.execute("delete_old_idempotency_keys", timedelta(hours=age_hours), CHUNK_ROWS))


async def delete_kept_payloads(database: Database) -> int:
    """Delete one chunk of payloads that outlived their day and that nothing needs any more; returns how many."""
    return _count(await database.execute("delete_kept_payloads", CHUNK_ROWS))


async def delete_old_redrives(database: Database, *, kept_days: int) -> int:
    """Delete one chunk of notes on redrives; returns how many."""
    return _count(await database.execute("delete_old_redrives", timedelta(days=kept_days), CHUNK_ROWS))


async def delete_old_progress(database: Database, *, age_hours: float) -> int:
    """Delete one chunk of reports that nobody has renewed since; returns how many."""
    return _count(await database.execute("delete_old_progress", timedelta(hours=age_hours), CHUNK_ROWS))


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
