"""A process that measures what this Postgres gives anyone: a job's batched path without all that makes it safe.

Insert with payload, claim, finish, one outbox row per batch: key-only tables, no leases, no gates, no events. Reads an
order from stdin and answers with jobs a second for each window, as JSON.
"""

import asyncio
import os
import sys
import time
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import uvloop

_TENANT = UUID(int=7)
_PAYLOAD = '{"pad": "' + "x" * 1000 + '"}'

_TABLES = """
CREATE TABLE jobs (
    tenant_id uuid NOT NULL, job_id uuid NOT NULL, state smallint NOT NULL, priority smallint NOT NULL,
    fence int NOT NULL, attempts_max smallint NOT NULL, type_id int NOT NULL, worker_id int,
    lease_until timestamptz, due_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz, PRIMARY KEY (tenant_id, job_id)
) WITH (fillfactor = 70);
CREATE TABLE job_payloads (
    tenant_id uuid NOT NULL, job_id uuid NOT NULL, payload jsonb NOT NULL, PRIMARY KEY (tenant_id, job_id)
);
CREATE TABLE job_attempts (
    tenant_id uuid NOT NULL, job_id uuid NOT NULL, fence int NOT NULL, outcome smallint, started_at timestamptz,
    finished_at timestamptz, result jsonb, PRIMARY KEY (tenant_id, job_id, fence)
);
CREATE TABLE outbox (
    batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ids uuid[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
"""
_INSERT_JOBS = """
INSERT INTO jobs (tenant_id, job_id, state, priority, fence, attempts_max, type_id)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::int[], $6::smallint[], $7::int[])
"""
_INSERT_PAYLOADS = "INSERT INTO job_payloads SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[])"
_INSERT_OUTBOX = "INSERT INTO outbox (ids) VALUES ($1)"
_CLAIM = """
WITH claimed AS (
    UPDATE jobs AS job
       SET state = 1, fence = job.fence + 1, worker_id = 7, lease_until = now() + interval '30 s'
      FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS wanted (tenant_id, job_id, fence)
     WHERE (job.tenant_id, job.job_id) = (wanted.tenant_id, wanted.job_id)
       AND job.fence = wanted.fence
       AND job.state = 0
    RETURNING job.tenant_id, job.job_id, job.fence
)
SELECT claimed.job_id, claimed.fence, payload.payload
  FROM claimed
  JOIN job_payloads AS payload USING (tenant_id, job_id)
"""
_FINISH = """
WITH ended AS (
    UPDATE jobs AS job
       SET state = 2, finished_at = now()
      FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS done (tenant_id, job_id, fence)
     WHERE (job.tenant_id, job.job_id) = (done.tenant_id, done.job_id)
       AND job.fence = done.fence
       AND job.state = 1
    RETURNING job.tenant_id, job.job_id, job.fence
)
INSERT INTO job_attempts (tenant_id, job_id, fence, outcome, started_at, finished_at, result)
SELECT tenant_id, job_id, fence, 1, now(), now(), '{"ok":true}' FROM ended RETURNING job_id
"""


class PostgresOrder(msgspec.Struct, kw_only=True):
    """Where, and for how long."""

    dsn: str
    """A database of its own, empty."""
    windows: int
    window_seconds: float
    batch: int = 500
    connections: int = 2


async def measure(order: PostgresOrder) -> list[float]:
    """Jobs a second, window by window."""
    first = await asyncpg.connect(order.dsn)
    await first.execute(_TABLES)
    await first.close()
    stop = asyncio.Event()
    done = [0]
    async with asyncio.TaskGroup() as group:
        for _ in range(order.connections):
            group.create_task(_work(order, stop, done))
        await asyncio.sleep(1.0)
        rates = []
        for _ in range(order.windows):
            before, begin = done[0], time.monotonic()
            await asyncio.sleep(order.window_seconds)
            # A window in which a busy machine ends nothing lasts until it does.
            while done[0] == before:
                await asyncio.sleep(0.01)
            rates.append((done[0] - before) / (time.monotonic() - begin))
        stop.set()
    return rates


async def _work(order: PostgresOrder, stop: asyncio.Event, done: list[int]) -> None:
    connection: Any = await asyncpg.connect(order.dsn)
    zeros, ones, tenants = [0] * order.batch, [1] * order.batch, [_TENANT] * order.batch
    payloads = [_PAYLOAD] * order.batch
    while not stop.is_set():
        ids = [_uuid7() for _ in range(order.batch)]
        async with connection.transaction():
            await connection.execute(_INSERT_JOBS, tenants, ids, zeros, ones, zeros, ones, ones)
            await connection.execute(_INSERT_PAYLOADS, tenants, ids, payloads)
            await connection.execute(_INSERT_OUTBOX, ids)
        claimed = await connection.fetch(_CLAIM, tenants, ids, zeros)
        async with connection.transaction():
            ended = await connection.fetch(_FINISH, tenants, ids, ones)
            await connection.execute(_INSERT_OUTBOX, ids)
        assert len(claimed) == len(ended) == order.batch
        done[0] += order.batch
    await connection.close()


def _uuid7() -> UUID:
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | (random[0] & 0x0F)
    random[2] = 0x80 | (random[2] & 0x3F)
    return UUID(bytes=int(time.time() * 1000).to_bytes(6, "big") + bytes(random))


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(uvloop.run(measure(msgspec.json.decode(sys.stdin.buffer.read(), type=PostgresOrder))))
    )
