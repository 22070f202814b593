"""The sliding log in Postgres and in memory: the same entries, the same room, to the microsecond."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barnabas.domain.gates import EXACT_MAX, StartLog
from barnabas_local.database import Logins

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
# A whole second, where an exact entry, a part of a window and a boundary can fall together.
NOW = 1_763_779_500 * SECOND

# Of windows whose parts are a power of two of seconds, or whole ones, nothing is rounded.
windows = st.sampled_from([60, 3600])
limits = st.one_of(st.integers(1, 9), st.sampled_from([EXACT_MAX, EXACT_MAX + 1]), st.integers(150, 600))
# In halves of the window's parts, or anything; backwards where a clock is set back.
moves = st.lists(
    st.tuples(st.integers(-30, 300).map(lambda halves: halves / 240) | st.floats(-0.2, 1.2), st.integers(1, 300)),
    min_size=1,
    max_size=25,
)


@pytest.fixture(scope="module")
async def connection(module_database: Logins) -> AsyncIterator[Any]:
    opened = await asyncpg.connect(module_database.engine_dsn)
    try:
        yield opened
    finally:
        await opened.close()


async def test_a_log_in_postgres_has_the_entries_and_the_room_of_the_model(connection: Any) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(windows, limits, limits, moves)
    def run(window: int, allowed: int, later: int, steps: list[tuple[float, int]]) -> None:
        asyncio.run_coroutine_threadsafe(follow(connection, window, allowed, later, steps), loop).result(120)

    await asyncio.to_thread(run)


async def follow(connection: Any, window: int, allowed: int, later: int, steps: list[tuple[float, int]]) -> None:
    """One log through starts and a change of its limit, in both places."""
    log = StartLog(starts_allowed=allowed, window_us=window * SECOND)
    entries: list[datetime] = []
    counts: list[int] = []
    at = NOW
    for number, (move, wanted) in enumerate(steps):
        at += int(move * window * SECOND)
        if number == len(steps) // 2:
            log = replace(log, starts_allowed=later)
        room = await connection.fetchval(
            "SELECT gate_room_v1(NULL, 0, $1, $2, $3, $4, $5)", log.starts_allowed, window, entries, counts, moment(at)
        )
        assert max(0, room) == log.room(at)
        starts = min(wanted, log.room(at))
        if not starts:
            continue
        log = log.add(at, starts)
        entries, counts = await connection.fetchrow(
            "SELECT at_entries, counts FROM log_starts_v1($1, $2, $3, $4, $5, $6)",
            entries,
            counts,
            log.starts_allowed,
            window,
            moment(at),
            starts,
        )
        times = [(entry - EPOCH) // timedelta(microseconds=1) for entry in entries]
        assert list(zip(times, counts, strict=True)) == list(log.entries)
        # Never too short: an entry before its start would let one too many through.
        assert entries[-1] >= moment(at)


def moment(at: int) -> datetime:
    return EPOCH + timedelta(microseconds=at)
