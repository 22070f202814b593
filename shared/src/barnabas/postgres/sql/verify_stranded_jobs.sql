-- verify_stranded_jobs: jobs that nobody brings back: ready in a queue that isn't there (the reconciler passes over them), due later without a timer,
-- blocked without a line or although it is their turn. A ready job in a known queue is always found by the reconciler, or has a place in `waiting`.
--   $1 limit integer
SELECT job.tenant_id, job.job_id AS ref_id, format('%s/%s', job.state, job.fence) AS mark,
       CASE job.state WHEN 2 THEN format('is ready in queue %s, which is not there', job.queue_id)
                      WHEN 1 THEN CASE WHEN place.job_id IS NULL THEN 'is blocked and stands in no line'
                                       WHEN line.tenant_id IS NULL THEN 'is blocked in a line in which nobody has the turn'
                                       ELSE 'is blocked although it has the turn' END
                      ELSE format('is due at %s and has no timer', job.due_at) END AS detail
  FROM jobs AS job
  LEFT JOIN ordering AS place ON job.state = 1 AND place.tenant_id = job.tenant_id AND place.job_id = job.job_id
  LEFT JOIN ordering_keys AS line ON line.tenant_id = place.tenant_id AND line.ordering_key = place.ordering_key
 WHERE (job.state = 2 AND NOT EXISTS (SELECT 1 FROM queues WHERE queues.queue_id = job.queue_id))
    OR (job.state = 1 AND (line.tenant_id IS NULL OR line.job_id = job.job_id))
    OR (job.state IN (0, 4)
        AND NOT EXISTS (SELECT 1 FROM timers WHERE timers.tenant_id = job.tenant_id AND timers.ref_id = job.job_id)
        AND NOT EXISTS (SELECT 1 FROM waiting WHERE waiting.tenant_id = job.tenant_id AND waiting.job_id = job.job_id))
 ORDER BY job.tenant_id, job.job_id
 LIMIT $1
