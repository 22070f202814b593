-- accept_jobs: see accept_jobs_v1; takes along the outbox rows that the broker has acknowledged, so that their end costs no commit of its own.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]   $3 type_ids integer[]   $4 priorities smallint[]   $5 queue_ids smallint[]   $6 timeouts_ms integer[]
--   $7 max_attempts smallint[]   $8 due_at timestamptz[]   $9 payloads bytea[]   $10 metadata bytea[]   $11 retry bytea[]   $12 trace bytea[]
--   $13 ordering_keys text[]   $14 outbox_ids bigint[]
WITH told AS (
    DELETE FROM outbox
     WHERE outbox_id = ANY ($14::bigint[])
)
SELECT outbox, marks, tenants, allowed, windows, rooms, seconds
  FROM accept_jobs_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
