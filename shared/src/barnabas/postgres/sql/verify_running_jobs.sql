-- verify_running_jobs: running jobs that no lease holds: their worker has no heartbeat row, or none of its batches names them.
--   $1 limit integer
WITH held AS MATERIALIZED (
    SELECT DISTINCT batch.worker_id, line.job_id
      FROM lease_batches AS batch
      CROSS JOIN LATERAL unnest(batch.ref_ids) AS line (job_id)
     WHERE batch.endpoint_ids IS NULL
)
SELECT job.tenant_id, job.job_id AS ref_id, job.fence::text AS mark,
       CASE WHEN worker.worker_id IS NULL THEN format('runs for worker %s, which has no heartbeat', job.worker_id)
            ELSE format('runs for worker %s, and no lease batch of it names the job', job.worker_id) END AS detail
  FROM jobs AS job
  LEFT JOIN workers AS worker ON worker.worker_id = job.worker_id
  LEFT JOIN held ON held.job_id = job.job_id AND held.worker_id = job.worker_id
 WHERE job.state = 3
   AND (worker.worker_id IS NULL OR held.job_id IS NULL)
 ORDER BY job.tenant_id, job.job_id
 LIMIT $1
