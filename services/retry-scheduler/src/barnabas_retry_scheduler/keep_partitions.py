"""Retention: makes the coming days' partitions, drops days that are over, and deletes old keys in chunks.

A day that something open still needs stays; payloads of open jobs are copied aside before their day goes.
"""

import time
from collections.abc import Sequence

import structlog

from barnabas.postgres.database import open_database
from barnabas.postgres.retention import (
    CHUNK_ROWS,
    Partition,
    delete_kept_payloads,
    delete_old_idempotency_keys,
    delete_old_progress,
    delete_old_redrives,
    drop_partition,
    list_old_partitions,
    make_partitions,
)
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import repeat
from barnabas_retry_scheduler.resources import Resources

log = structlog.get_logger(__name__)

# Days are made three ahead, so an hour is soon enough; a new leader looks at once.
_HOUR_SECONDS = 3_600.0
_IDLE_SECONDS = 2.0
_LOOK_SECONDS = 30.0
_DROP_SECONDS = 900.0

IDEMPOTENCY_HOURS = 24.0
"""How long a key answers for its job; part of the API."""

# A handler that has reported nothing for so long has ended, or shows an old report for nothing.
_PROGRESS_HOURS = 24.0
# A backlog of keys is worked off in portions of a minute, so that one hour's round never lasts as long.
_CHUNKS_MAX = 500


async def keep_partitions(resources: Resources, stop: Stop) -> None:
    """Once an hour, and at once when this process begins to lead."""
    next_at = 0.0

    async def step() -> float:
        nonlocal next_at
        if not resources.leadership.is_held:
            next_at = 0.0
            return _IDLE_SECONDS
        if time.monotonic() >= next_at:
            await keep_partitions_once(resources)
            next_at = time.monotonic() + _HOUR_SECONDS
        return _LOOK_SECONDS

    await repeat(step, stop)


async def keep_partitions_once(resources: Resources) -> list[str]:
    """Make, drop and delete what is due; returns the partitions that were dropped, as `table/day`.

    Raises `DatabaseUnavailableError` when a lock couldn't be had in time: what was done is done, the rest comes again.
    """
    database, kept_days = resources.database, resources.settings.retention_days
    made = await make_partitions(database)
    reach(CrashPoint.PARTITIONS_AFTER_MAKE)
    dropped, needed = await _drop_old(resources, await list_old_partitions(database, kept_days=kept_days))
    keys = 0
    for _ in range(_CHUNKS_MAX):
        deleted = await delete_old_idempotency_keys(database, age_hours=IDEMPOTENCY_HOURS)
        keys += deleted
        if deleted < CHUNK_ROWS:
            break
    payloads = await delete_kept_payloads(database)
    await delete_old_redrives(database, kept_days=kept_days)
    await delete_old_progress(database, age_hours=_PROGRESS_HOURS)
    if made or dropped or keys or payloads:
        log.info("retention_kept", made=made, dropped=dropped, needed=needed, keys=keys, kept_payloads=payloads)
    return dropped


async def _drop_old(resources: Resources, partitions: Sequence[Partition]) -> tuple[list[str], list[str]]:
    """Drop what may go; returns the names of those dropped and of those still needed."""
    dropped: list[str] = []
    needed: list[str] = []
    if partitions:
        dsn = resources.settings.postgres.get_secret_value()
        # A connection of its own: looking through a day of payloads takes longer than any other statement may.
        async with open_database(dsn, login="engine", size_max=1, command_seconds=_DROP_SECONDS) as patient:
            for partition in partitions:
                name = f"{partition.parent}/{partition.day}"
                (dropped if await drop_partition(patient, partition) else needed).append(name)
    return dropped, needed
