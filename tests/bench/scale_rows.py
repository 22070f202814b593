"""Finished jobs by the million, as they would lie there: written by SQL, over the days and tenants that real ones have.

Each has its payload and its result, 1 KB each, ids of its own time, and the partition of its day; one in a hundred
failed. Postgres has looked after them (VACUUM, ANALYZE) and written them out before anything is measured, as it would
have by the time that so many jobs have ended.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tests.bench.system import System, Tenant, superuser

_CHUNK = 100_000
# The oldest partition that is always there is two days old.
_AGE_SECONDS = 1.9 * 86_400
_PAD_BYTES = 960

_INSERT = """
WITH ended AS MATERIALIZED (
    SELECT ($1::uuid[])[1 + floor(random() * cardinality($1::uuid[]))::integer] AS tenant_id,
           uuidv7(make_interval(secs => -age.seconds)) AS job_id,
           uuidv7(make_interval(secs => 1 - age.seconds)) AS event_id,
           now() - make_interval(secs => age.seconds) AS created_at,
           CASE WHEN random() < 0.01 THEN 6 ELSE 5 END AS state
      FROM (SELECT $2::float8 + ($3::float8 - $2::float8) * n / $4::integer AS seconds
              FROM generate_series(1, $4::integer) AS n) AS age
),
sent AS (
    INSERT INTO job_payloads (tenant_id, job_id, created_at, type_id, priority, queue_id, payload)
    SELECT tenant_id, job_id, created_at, $5::integer, 1, 0, $6::bytea
      FROM ended
)
INSERT INTO job_results (tenant_id, job_id, event_id, worker_id, started_at, finished_at, fence, type_id, state,
                         priority, queue_id, attempt, losses, reason, result)
SELECT tenant_id, job_id, event_id, $7::uuid, created_at + interval '0.9 s', created_at + interval '1 s', 1,
       $5::integer, state, 1, 0, 1, 0, CASE WHEN state = 6 THEN 'attempts_exhausted' END, $6::bytea
  FROM ended
"""


async def add_rows(system: System, tenants: Sequence[Tenant], count: int, *, behind: float) -> None:
    """So many more finished jobs, evenly spread over the time before those that are there.

    `behind` is the share of that time which was filled already, from its oldest end.
    """
    ids = [UUID(tenant.id) for tenant in tenants]
    payload = b'{"sent":0.0,"pad":"%b"}' % (b"x" * _PAD_BYTES)
    async with superuser(system.stack) as connection:
        type_id = await connection.fetchval("SELECT type_id FROM job_types WHERE name = 'stamp'")
        worker_id = await connection.fetchval("SELECT worker_id FROM workers LIMIT 1")
        oldest = _AGE_SECONDS * (1 - behind)
        done = 0
        while done < count:
            portion = min(_CHUNK, count - done)
            begin, end = (oldest * (1 - part / count) + 60 for part in (done, done + portion))
            await connection.execute(_INSERT, ids, begin, end, portion, type_id, payload, worker_id, timeout=300)
            done += portion
        await connection.execute("VACUUM (ANALYZE) job_payloads, job_results", timeout=900)
        await connection.execute("CHECKPOINT", timeout=600)


async def finished_rows(system: System) -> int:
    """How many jobs have ended, all tenants' together."""
    async with superuser(system.stack) as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM job_results", timeout=300)
    return count


async def size_gb(system: System) -> float:
    """What the system's database takes on disk."""
    size: Any = await system.database.fetchval("SELECT pg_database_size(current_database())")
    return float(size) / 1e9
