-- inspect_open_jobs: one page of the open jobs, in key order: how many in which state, and those that Kafka may have lost.
--   $1 after_tenant uuid   $2 after_job uuid   $3 limit integer   $4 ready_before timestamptz   $5 overdue_before timestamptz
--   $6 started_before timestamptz
-- rows:  one: seen, the page's last key, by_state (states 0 to 4), oldest_ready (queued, by priority 0 to 3), suspects (ready before $4
--        without a row in `waiting`, or overdue since $5 without a timer) and orphans (running since $6 for a worker without heartbeat row).
-- index: jobs_pkey; waiting_job, timers_pkey, workers_pkey only for the few rows that come so far
WITH page AS MATERIALIZED (
    SELECT job.tenant_id, job.job_id, job.fence, job.type_id, job.state, job.priority, job.queue_id, job.hooks, job.ready_at, job.due_at, job.worker_id,
           job.started_at
      FROM jobs AS job
     WHERE (job.tenant_id, job.job_id) > ($1::uuid, $2::uuid)
     ORDER BY job.tenant_id, job.job_id
     LIMIT $3
),
judged AS MATERIALIZED (
    SELECT page.*,
           CASE page.state
               WHEN 2 THEN page.ready_at < $4
                           AND (page.hooks & 128 = 0
                                OR NOT EXISTS (SELECT 1 FROM waiting AS seat WHERE seat.tenant_id = page.tenant_id AND seat.job_id = page.job_id))
               WHEN 0 THEN page.due_at < $5 AND page.hooks & 128 = 0
                           AND NOT EXISTS (SELECT 1 FROM timers WHERE timers.tenant_id = page.tenant_id AND timers.ref_id = page.job_id)
               WHEN 4 THEN page.due_at < $5 AND page.hooks & 128 = 0
                           AND NOT EXISTS (SELECT 1 FROM timers WHERE timers.tenant_id = page.tenant_id AND timers.ref_id = page.job_id)
               ELSE false
           END AS suspect,
           page.state = 3 AND page.started_at < $6
               AND NOT EXISTS (SELECT 1 FROM workers WHERE workers.worker_id = page.worker_id) AS orphan
      FROM page
),
last_key AS (
    SELECT page.tenant_id, page.job_id
      FROM page
     ORDER BY page.tenant_id DESC, page.job_id DESC
     LIMIT 1
)
SELECT count(*)::integer AS seen,
       (SELECT last_key.tenant_id FROM last_key) AS last_tenant,
       (SELECT last_key.job_id FROM last_key) AS last_job,
       ARRAY[count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
             count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4)] AS by_state,
       ARRAY[min(ready_at) FILTER (WHERE state = 2 AND priority = 0), min(ready_at) FILTER (WHERE state = 2 AND priority = 1),
             min(ready_at) FILTER (WHERE state = 2 AND priority = 2), min(ready_at) FILTER (WHERE state = 2 AND priority = 3)] AS oldest_ready,
       array_agg(ROW(tenant_id, job_id, fence, priority, queue_id, type_id, GREATEST(ready_at, due_at), state::integer)) FILTER (WHERE suspect) AS suspects,
       array_agg(ROW(worker_id, tenant_id, job_id)) FILTER (WHERE orphan) AS orphans
  FROM judged
