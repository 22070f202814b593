-- take_due_timers: what is due and still waits becomes ready, its outbox rows are written, and the timers are deleted.
--   $1 limit integer
-- rows:  one: how many timers were taken, the outbox rows, how late each job was (seconds), and when the next timer is due.
-- locks: jobs, then deliveries, then timers, each in key order. A timer that its job's next attempt has set anew meanwhile is
--        another timer (fence, due_at) and stays.   index: timers_poll_at, jobs_pkey, deliveries_pkey, timers_pkey
WITH due AS MATERIALIZED (
    SELECT head.*
      FROM (
          SELECT timers.tenant_id, timers.ref_id, timers.endpoint_id, timers.kind, timers.fence, timers.due_at
            FROM timers
           WHERE timers.poll_at <= now()
           ORDER BY timers.poll_at
           LIMIT $1
      ) AS head
     ORDER BY head.tenant_id, head.ref_id, head.endpoint_id
),
queued AS (
    UPDATE jobs AS job
       SET state = 2, ready_at = now()
      FROM due
     WHERE due.kind = 1
       AND job.tenant_id = due.tenant_id
       AND job.job_id = due.ref_id
       AND job.state IN (0, 4)
       AND job.due_at <= now()
    RETURNING job.tenant_id, job.job_id, job.fence, job.hooks, job.due_at
),
pending AS (
    UPDATE deliveries AS delivery
       SET state = 0
      FROM due
     WHERE due.kind = 2
       AND delivery.tenant_id = due.tenant_id
       AND delivery.event_id = due.ref_id
       AND delivery.endpoint_id = due.endpoint_id
       AND delivery.state = 3
       AND delivery.due_at <= now()
    RETURNING delivery.tenant_id, delivery.event_id, delivery.endpoint_id, delivery.fence
),
removed AS (
    DELETE FROM timers
     USING due
     WHERE timers.tenant_id = due.tenant_id
       AND timers.ref_id = due.ref_id
       AND timers.endpoint_id = due.endpoint_id
       AND timers.fence = due.fence
       AND timers.due_at = due.due_at
),
told_jobs AS (
    INSERT INTO outbox (kind, tenant_ids, ref_ids, fences)
    SELECT 1, array_agg(queued.tenant_id), array_agg(queued.job_id), array_agg(queued.fence)
      FROM queued
     -- A job that the claim has parked is called by its gate, not by the clock.
     WHERE queued.hooks & 128 = 0
    HAVING count(*) > 0
    RETURNING outbox_id
),
told_deliveries AS (
    INSERT INTO outbox (kind, tenant_ids, ref_ids, endpoint_ids, fences)
    SELECT 4, array_agg(pending.tenant_id), array_agg(pending.event_id), array_agg(pending.endpoint_id), array_agg(pending.fence)
      FROM pending
    HAVING count(*) > 0
    RETURNING outbox_id
)
SELECT (SELECT count(*) FROM due)::integer AS taken,
       (SELECT outbox_id FROM told_jobs) AS jobs_outbox,
       (SELECT outbox_id FROM told_deliveries) AS deliveries_outbox,
       COALESCE((SELECT array_agg(extract(epoch FROM now() - queued.due_at)::float8) FROM queued), '{}') AS lateness_seconds,
       (SELECT timers.poll_at FROM timers WHERE timers.poll_at > now() ORDER BY timers.poll_at LIMIT 1) AS next_at
