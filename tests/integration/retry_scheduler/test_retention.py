"""Days made ahead and dropped, and what is deleted in chunks."""

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from barnabas.domain.ids import uuid7
from barnabas.postgres.retention import CHUNK_ROWS, delete_kept_payloads, delete_old_idempotency_keys
from barnabas_retry_scheduler.keep_partitions import keep_partitions_once
from barnabas_retry_scheduler.resources import Resources
from tests.support.eventually import eventually
from tests.support.world import World

TABLES = ("job_payloads", "job_results", "job_attempts", "deliveries", "delivery_attempts")


async def partitions(world: World, table: str) -> set[str]:
    rows = await world.superuser.fetch(
        "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid"
        " WHERE inhparent = $1::text::regclass",
        table,
    )
    return {row["relname"] for row in rows}


async def make_days(world: World, back: int) -> date:
    """Partitions so far back; returns the oldest day."""
    # A day that ends meanwhile would be another one's end, too.
    await eventually(lambda: datetime.now(UTC).time() < time(23, 58), timeout=150)
    await world.superuser.execute("SELECT make_partitions_v1($1, 3)", back)
    return datetime.now(UTC).date() - timedelta(days=back)


def on(day: date, number: int) -> UUID:
    noon = datetime.combine(day, time(12), tzinfo=UTC)
    return uuid7(int(noon.timestamp() * 1_000), (number << 64).to_bytes(10, "big"))


async def submitted(world: World, day: date, number: int, *, state: str) -> UUID:
    """A job of that day: open, dead, or gone."""
    tenant_id, job_id = UUID(int=1), on(day, number)
    await world.superuser.execute(
        "INSERT INTO job_payloads (tenant_id, job_id, created_at, type_id, priority, queue_id, payload)"
        " VALUES ($1, $2, now(), 1, 1, 0, $3)",
        tenant_id,
        job_id,
        str(number).encode(),
    )
    if state == "open":
        await world.superuser.execute(
            "INSERT INTO jobs (tenant_id, job_id, ready_at, type_id, state, priority) VALUES ($1, $2, now(), 1, 0, 1)",
            tenant_id,
            job_id,
        )
    if state == "dead":
        await world.superuser.execute(
            "INSERT INTO dead_letters (tenant_id, kind, ref, reason) VALUES ($1, 1, $2, 'permanent_error')",
            tenant_id,
            job_id,
        )
    return job_id


async def test_the_coming_days_are_made(world: World, scheduler: Resources) -> None:
    tomorrow = f"{datetime.now(UTC).date() + timedelta(days=1):%Y%m%d}"
    for table in TABLES:
        await world.superuser.execute(f"DROP TABLE {table}_{tomorrow}")
    await keep_partitions_once(scheduler)

    for table in TABLES:
        assert f"{table}_{tomorrow}" in await partitions(world, table)


async def test_a_day_that_is_over_for_longer_than_it_is_kept_goes_and_payloads_still_needed_are_copied_aside(
    world: World, scheduler: Resources
) -> None:
    day = await make_days(world, back=scheduler.settings.retention_days + 1)
    waiting = await submitted(world, day, 1, state="open")
    dead = await submitted(world, day, 2, state="dead")
    await submitted(world, day, 3, state="gone")
    kept = await submitted(world, day + timedelta(days=1), 4, state="gone")
    dropped = await keep_partitions_once(scheduler)

    assert dropped == [
        f"{table}/{day}" for table in ("job_attempts", "delivery_attempts", "deliveries", "job_results", "job_payloads")
    ]
    rows = await world.superuser.fetch("SELECT job_id, payload FROM job_payloads_kept")
    assert {row["job_id"]: row["payload"] for row in rows} == {waiting: b"1", dead: b"2"}
    assert [row["job_id"] for row in await world.superuser.fetch("SELECT job_id FROM job_payloads")] == [kept]


async def test_a_day_that_an_open_delivery_needs_stays(world: World, scheduler: Resources) -> None:
    day = await make_days(world, back=scheduler.settings.retention_days + 1)
    await world.superuser.execute(
        "INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, state)"
        " VALUES ($1, $2, $1, $1, $1, 3)",
        UUID(int=1),
        on(day, 1),
    )
    dropped = await keep_partitions_once(scheduler)

    assert f"deliveries/{day}" not in dropped
    assert f"delivery_attempts/{day}" not in dropped
    assert f"job_results/{day}" in dropped


async def test_a_payload_that_was_copied_aside_is_deleted_when_nothing_needs_it_any_more(
    world: World, scheduler: Resources
) -> None:
    day = await make_days(world, back=scheduler.settings.retention_days + 1)
    job_id = await submitted(world, day, 1, state="open")
    await keep_partitions_once(scheduler)
    assert await delete_kept_payloads(scheduler.database) == 0

    await world.superuser.execute("DELETE FROM jobs WHERE job_id = $1", job_id)
    assert await delete_kept_payloads(scheduler.database) == 1


async def test_idempotency_keys_are_kept_for_a_day_and_deleted_in_chunks(world: World, scheduler: Resources) -> None:
    tenant_id = await world.tenant()
    await world.superuser.execute(
        "INSERT INTO idempotency_keys (tenant_id, key, job_id, fingerprint, created_at)"
        " SELECT $1, n::text, $1, '', now() - interval '25 hours' FROM generate_series(1, $2) AS n",
        tenant_id,
        CHUNK_ROWS + 10,
    )
    await world.superuser.execute(
        "INSERT INTO idempotency_keys (tenant_id, key, job_id, fingerprint, created_at)"
        " VALUES ($1, 'young', $1, '', now() - interval '23 hours')",
        tenant_id,
    )

    assert await delete_old_idempotency_keys(scheduler.database, age_hours=24) == CHUNK_ROWS
    await keep_partitions_once(scheduler)
    rows = await world.superuser.fetch("SELECT key FROM idempotency_keys")
    assert [row["key"] for row in rows] == ["young"]
