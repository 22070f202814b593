-- accept_keyed_jobs: see accept_keyed_jobs_v1.
--   $1 keys text[]   $2 fingerprints bytea[]   $3 tenant_ids uuid[]   $4 job_ids uuid[]   $5 type_ids integer[]   $6 priorities smallint[]
--   $7 queue_ids smallint[]   $8 timeouts_ms integer[]   $9 max_attempts smallint[]   $10 due_at timestamptz[]   $11 payloads bytea[]
--   $12 metadata bytea[]   $13 retry bytea[]   $14 trace bytea[]   $15 ordering_keys text[]
SELECT outbox, marks, tenants, allowed, windows, rooms, seconds, holders, fingerprints
  FROM accept_keyed_jobs_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
