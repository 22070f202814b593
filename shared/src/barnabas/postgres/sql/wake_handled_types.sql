-- wake_handled_types: jobs that met no handler and whose type a live worker of their queue has announced since.
--   $1 limit integer
-- rows:  tenant_id, job_id, fence of those to be told again.   index: waiting_type, jobs_pkey
WITH handled AS MATERIALIZED (
    SELECT DISTINCT announced.type_id, served.queue_id
      FROM workers
      CROSS JOIN LATERAL unnest(workers.type_ids) AS announced (type_id)
      CROSS JOIN LATERAL unnest(workers.queue_ids) AS served (queue_id)
     WHERE workers.lease_until > clock_timestamp()
),
head AS MATERIALIZED (
    SELECT seat.tenant_id, seat.line, seat.precedence, seat.seq, seat.job_id
      FROM handled
      JOIN waiting AS seat ON seat.line = handled.type_id
      JOIN jobs AS job ON job.tenant_id = seat.tenant_id AND job.job_id = seat.job_id AND job.queue_id = handled.queue_id
     WHERE seat.kind = 3
       AND (seat.woken_at IS NULL OR seat.woken_at < now() - interval '30 seconds')
     LIMIT $1
       -- A claim that has the row just now needs no call.
       FOR UPDATE OF seat SKIP LOCKED
),
woken AS (
    UPDATE waiting
       SET woken_at = now()
      FROM head
     WHERE waiting.tenant_id = head.tenant_id
       AND waiting.kind = 3
       AND waiting.line = head.line
       AND waiting.precedence = head.precedence
       AND waiting.seq = head.seq
    RETURNING waiting.tenant_id, waiting.job_id
)
SELECT job.tenant_id, job.job_id, job.fence
  FROM woken
  JOIN jobs AS job ON job.tenant_id = woken.tenant_id AND job.job_id = woken.job_id
