-- verify_timers: timers of jobs and deliveries that don't wait for a time. One is left behind whenever a delay topic was quicker, and its poller takes
-- it away 5 s after it was due.
--   $1 limit integer
SELECT timer.tenant_id, timer.ref_id, format('%s/%s', timer.fence, timer.due_at) AS mark,
       format('a timer for %s, of a %s that does not wait for it', timer.due_at, CASE timer.kind WHEN 1 THEN 'job' ELSE 'delivery' END) AS detail
  FROM timers AS timer
 WHERE CASE timer.kind
           WHEN 1 THEN NOT EXISTS (SELECT 1 FROM jobs AS job WHERE job.tenant_id = timer.tenant_id AND job.job_id = timer.ref_id AND job.state IN (0, 4))
           ELSE NOT EXISTS (SELECT 1
                              FROM deliveries AS delivery
                             WHERE delivery.tenant_id = timer.tenant_id
                               AND delivery.event_id = timer.ref_id
                               AND delivery.endpoint_id = timer.endpoint_id
                               AND delivery.state = 3)
       END
 ORDER BY timer.tenant_id, timer.ref_id
 LIMIT $1
