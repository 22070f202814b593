"""What the doctor says of a system, told from facts: what is, and what comes of it."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from barnabas.domain import recovery
from barnabas.domain.doctor import (
    Gate,
    Lag,
    Level,
    Line,
    Lost,
    Process,
    Server,
    Topics,
    Waiting,
    judge_disk,
    judge_gates,
    judge_lost,
    judge_processes,
    judge_server,
    judge_topics,
    judge_waiting,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEADING = Waiting(lead_until=NOW + timedelta(seconds=8), workers=2, notifiers=1)
SERVER = Server(
    now=NOW,
    version="18.4",
    is_standby=False,
    is_read_only=False,
    started_at=NOW - timedelta(days=3),
    connections=20,
    connections_max=100,
    oldest_transaction_at=None,
    missing_days=(("jobs", date(2026, 3, 5)),),
)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def of(part: str, lines: list[Line]) -> Line:
    """The first line of a part."""
    return next(line for line in lines if line.part == part)


def waits(waiting: Waiting) -> list[Line]:
    return judge_waiting(waiting, now=NOW, lease_seconds=10.0)


def test_a_system_in_which_nothing_waits_needs_nobody() -> None:
    lines = [*waits(LEADING), *judge_server(SERVER), *judge_topics(Topics(count=17), leads=True)]
    lines += judge_processes([Process("ingest", "http://x", ())])
    lost = Lost(untaken=0, oldest_seconds=0.0, next_seconds=0.0, walk_seconds=1.0)
    lines.append(judge_lost(lost, open_jobs=0, leads=True))
    lines.append(judge_disk("/data", free_bytes=50 * 1024**3, total_bytes=100 * 1024**3))

    assert {line.level for line in lines} == {Level.FINE}


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("leases", {"leases_over": 2, "lease_at": ago(30)}),
        ("outbox", {"outbox_rows": 7, "outbox_at": ago(20)}),
        ("timers", {"timers_late": 3, "timer_at": ago(60)}),
        ("deliveries", {"pending_deliveries": 4}),
    ],
)
def test_what_the_leader_brings_back_heals_while_somebody_leads_and_not_before(
    part: str, changes: dict[str, object]
) -> None:
    led = of(part, waits(replace(LEADING, **changes)))  # type: ignore[arg-type]
    unled = of(part, waits(replace(LEADING, lead_until=ago(60), **changes)))  # type: ignore[arg-type]

    assert led.level is Level.HEALING
    assert unled.then.startswith("not before a retry-scheduler leads")


def test_without_a_leader_somebody_has_to_start_one() -> None:
    never, lost = of("leader", waits(Waiting())), of("leader", waits(replace(LEADING, lead_until=ago(600))))

    assert {never.level, lost.level} == {Level.ACT}
    assert "10 min" in lost.now


def test_a_young_outbox_row_and_a_timer_of_a_delay_tier_are_on_their_way() -> None:
    lines = waits(replace(LEADING, outbox_rows=1, outbox_at=ago(4), timer_at=ago(4)))

    assert of("outbox", lines).level is Level.FINE
    assert of("timers", lines).level is Level.FINE


def test_open_jobs_without_a_worker_and_types_without_a_handler_are_for_somebody() -> None:
    lines = waits(replace(LEADING, workers=0, open_jobs=100_000, unhandled=("scoring",)))

    assert of("workers", lines).level is Level.ACT
    assert "100,000 or more" in of("workers", lines).now
    assert "scoring" in of("handlers", lines).now


@pytest.mark.parametrize(("seconds", "level"), [(60, Level.HEALING), (301, Level.ACT)])
def test_a_dead_letter_is_for_somebody_after_five_minutes(seconds: float, level: Level) -> None:
    line = of("dead letters", waits(replace(LEADING, letters=(0, 3), letters_at=(None, ago(seconds)))))

    assert line.level is level
    assert "--kind deliveries" in line.then


@pytest.mark.parametrize(
    ("changes", "part", "says"),
    [
        ({"is_standby": True}, "postgres", "standby"),
        ({"is_read_only": True}, "postgres", "read-only"),
        ({"unlimited": ("barnabas_api",)}, "logins", "barnabas_api"),
        ({"missing_migrations": ("0008_x.sql",)}, "schema", "0008_x.sql"),
        ({"missing_days": (("jobs", date(2026, 3, 5)), ("deliveries", date(2026, 3, 2)))}, "days", "deliveries"),
    ],
)
def test_a_server_that_cannot_serve_needs_somebody(changes: dict[str, object], part: str, says: str) -> None:
    line = of(part, judge_server(replace(SERVER, **changes)))  # type: ignore[arg-type]

    assert line.level is Level.ACT
    assert says in line.now


@pytest.mark.parametrize(
    "changes", [{"connections": 95}, {"oldest_transaction_at": NOW - timedelta(minutes=20)}], ids=str
)
def test_a_server_that_nears_its_limits_needs_somebody_too(changes: dict[str, object]) -> None:
    levels = [line.level for line in judge_server(replace(SERVER, **changes))]  # type: ignore[arg-type]

    assert levels.count(Level.ACT) == 1


def test_a_schema_of_a_newer_release_is_no_fault() -> None:
    assert of("schema", judge_server(replace(SERVER, unknown_migrations=("0099_x.sql",)))).level is Level.FINE


@pytest.mark.parametrize(("reasons", "level"), [((), Level.FINE), (("no lease",), Level.HEALING), (None, Level.ACT)])
def test_a_process_is_ready_or_says_why_not_or_is_not_there(reasons: tuple[str, ...] | None, level: Level) -> None:
    (line,) = judge_processes([Process("worker", "http://127.0.0.1:1", reasons)])

    assert line.level is level


@pytest.mark.parametrize(
    ("room", "level"), [(0, Level.FINE), (-1, Level.FINE), (2, Level.HEALING), (None, Level.HEALING)]
)
def test_who_waits_at_a_full_limit_is_where_he_should_be(room: int | None, level: Level) -> None:
    gate = Gate(tenant="acme", type="echo", allowed=5, used=5, starts_allowed=None, waiting=9, since=ago(5), room=room)
    (line,) = judge_gates([gate], now=NOW, leads=True)

    assert line.level is level
    assert "acme, type echo: 9 wait (5 of 5 run)" in line.now


def test_topics_that_are_missing_narrow_or_new_are_told_with_what_comes_of_it() -> None:
    topics = Topics(count=15, missing=("barnabas.results",), narrow=("x has 1 of 24 partitions",), changed=("y",))
    led, unled = judge_topics(topics, leads=True), judge_topics(topics, leads=False)

    assert [line.level for line in led] == [Level.HEALING] * 2
    assert [line.level for line in unled] == [Level.ACT] * 2


@pytest.mark.parametrize(
    ("records", "age", "level"), [(0, None, Level.FINE), (500, 2.0, Level.FINE), (1, 120.0, Level.HEALING)]
)
def test_lag_is_told_by_its_age(records: int, age: float | None, level: Level) -> None:
    lags = (Lag(group="barnabas.worker", records=records, oldest_seconds=age),)

    assert of("lag", judge_topics(Topics(count=17, lags=lags), leads=True)).level is level


def test_lost_records_are_promised_for_the_time_that_the_reconciler_keeps() -> None:
    lost = Lost(untaken=3, oldest_seconds=400.0, next_seconds=42.0, walk_seconds=2.0)
    line = judge_lost(lost, open_jobs=30_000, leads=True)

    assert line.level is Level.HEALING
    assert "in 42 s" in line.then
    assert judge_lost(lost, open_jobs=30_000, leads=False).level is Level.ACT
    assert judge_lost(None, open_jobs=0, leads=True).level is Level.FINE


def test_a_disk_that_is_nearly_full_needs_somebody() -> None:
    full = judge_disk("/data", free_bytes=1024**2, total_bytes=100 * 1024**3)

    assert full.level is Level.ACT
    assert "503" in full.then


def test_a_record_is_sent_again_at_doubling_intervals_up_to_an_hour() -> None:
    intervals = [recovery.resend_interval(times) for times in range(10)]

    assert intervals[:3] == [30.0, 60.0, 120.0]
    assert intervals[7:] == [3_840.0] * 3
    assert recovery.walk_seconds(0) == recovery.WALK_REST_SECONDS
    assert recovery.walk_seconds(300_000) == recovery.WALK_REST_SECONDS + 100
