from datetime import UTC, datetime, timedelta

import pytest

from barnabas.errors import DatabaseUnavailableError
from barnabas.runtime.clock import DatabaseClock, SystemClock


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


async def test_the_database_clock_follows_the_database() -> None:
    ahead = timedelta(hours=5)

    async def read() -> datetime:
        return datetime.now(UTC) + ahead

    clock = DatabaseClock(read)
    correction = await clock.synchronise()

    assert abs(clock.now() - (datetime.now(UTC) + ahead)) < timedelta(seconds=1)
    assert correction == pytest.approx(ahead.total_seconds(), abs=1)
    assert clock.uncertainty_seconds < 1
    assert abs(await clock.synchronise()) < 1


async def test_a_failed_measurement_keeps_the_old_offset() -> None:
    answers = [datetime(2020, 1, 1, tzinfo=UTC)] * 3

    async def read() -> datetime:
        if not answers:
            raise DatabaseUnavailableError
        return answers.pop()

    clock = DatabaseClock(read)
    await clock.synchronise()
    with pytest.raises(DatabaseUnavailableError):
        await clock.synchronise()

    assert clock.now().year == 2020
