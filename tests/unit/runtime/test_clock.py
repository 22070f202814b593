from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from barnabas.errors import DatabaseUnavailableError
from barnabas.runtime import clock as clocks
from barnabas.runtime.clock import DatabaseClock, SystemClock


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


async def test_the_database_clock_follows_the_database() -> None:
    ahead = timedelta(hours=5)

    async def read() -> datetime:
        return datetime.now(UTC) + ahead

    clock = DatabaseClock(read)
    correction = await clock.synchronise()

    assert abs(clock.now() - (datetime.now(UTC) + ahead)) < timedelta(minutes=1)
    assert correction == pytest.approx(ahead.total_seconds(), abs=60)
    assert clock.uncertainty_seconds < 60
    assert abs(await clock.synchronise()) < 60


async def test_a_failed_measurement_keeps_the_old_offset() -> None:
    away = False

    async def read() -> datetime:
        if away:
            raise DatabaseUnavailableError
        return datetime(2020, 1, 1, tzinfo=UTC)

    clock = DatabaseClock(read)
    await clock.synchronise()
    away = True
    with pytest.raises(DatabaseUnavailableError):
        await clock.synchronise()

    assert clock.now().year == 2020


async def test_the_clock_is_asked_again_only_while_the_answers_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    slow = [0.005, 0.005, 0.005, 0.0, 0.0, 0.0]

    async def read() -> datetime:
        asked.append(slow[len(asked)])
        return datetime.now(UTC)

    # Time passes only while an answer is waited for: how slow this machine is says nothing about the database.
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: 100.0 + sum(asked)))
    clock = DatabaseClock(read)
    await clock.synchronise()
    assert asked == [0.005] * 3
    assert clock.uncertainty_seconds == pytest.approx(0.0025)
    await clock.synchronise()

    assert asked == [0.005] * 3 + [0.0]
    assert clock.uncertainty_seconds == 0.0
