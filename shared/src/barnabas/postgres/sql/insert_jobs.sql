-- insert_jobs: a flush of accepted jobs: the open row, what was submitted, timers of those due later, and one outbox row for those ready now.
--   $1 tenant_ids uuid[]     $2 job_ids uuid[]        $3 type_ids integer[]   $4 priorities smallint[]   $5 queue_ids smallint[]
--   $6 timeouts_ms integer[] $7 max_attempts smallint[] $8 due_at timestamptz[] (NULL = now)             $9 payloads bytea[]
--   $10 metadata bytea[]     $11 retry bytea[]        $12 trace bytea[]       $13 redrive_of uuid[]      $14 hooks smallint[]
-- rows:  one, with the outbox row's id or NULL when nothing is ready.
WITH new AS (
    SELECT *
      FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::smallint[], $5::smallint[], $6::integer[], $7::smallint[], $8::timestamptz[],
                  $9::bytea[], $10::bytea[], $11::bytea[], $12::bytea[], $13::uuid[], $14::smallint[])
        AS t (tenant_id, job_id, type_id, priority, queue_id, timeout_ms, max_attempts, due_at, payload, metadata, retry, trace, redrive_of, hooks)
),
opened AS (
    INSERT INTO jobs (tenant_id, job_id, ready_at, due_at, type_id, timeout_ms, state, priority, queue_id, max_attempts, hooks)
    SELECT new.tenant_id, new.job_id, COALESCE(new.due_at, now()), new.due_at, new.type_id, new.timeout_ms,
           CASE WHEN new.due_at IS NULL THEN 2 ELSE 0 END, new.priority, new.queue_id, new.max_attempts, new.hooks
      FROM new
),
sent AS (
    INSERT INTO job_payloads (tenant_id, job_id, redrive_of, created_at, run_at, type_id, timeout_ms, priority, queue_id, max_attempts, payload,
                              metadata, retry, trace)
    SELECT new.tenant_id, new.job_id, new.redrive_of, now(), new.due_at, new.type_id, new.timeout_ms, new.priority, new.queue_id, new.max_attempts,
           new.payload, new.metadata, new.retry, new.trace
      FROM new
),
timed AS (
    INSERT INTO timers (tenant_id, ref_id, kind, fence, due_at, poll_at)
    SELECT new.tenant_id, new.job_id, 1, 0, new.due_at, new.due_at
      FROM new
     WHERE new.due_at IS NOT NULL
),
told AS (
    INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
    SELECT 1, array_agg(new.tenant_id), array_agg(new.job_id), array_agg(0)
      FROM new
     WHERE new.due_at IS NULL
    HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT (SELECT outbox_id FROM told) AS outbox_id
