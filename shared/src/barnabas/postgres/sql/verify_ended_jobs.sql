-- verify_ended_jobs: jobs that have ended and are open as well. Of 100,000 open jobs, those first that were claimed before: no other could have ended.
--   $1 limit integer
-- index: job_results_pkey of each day
SELECT open.tenant_id, open.job_id AS ref_id, ended.event_id::text AS mark, format('has ended at %s, and is open', ended.finished_at) AS detail
  FROM (
      SELECT job.tenant_id, job.job_id
        FROM jobs AS job
       ORDER BY job.fence = 0
       LIMIT 100000
  ) AS open
  JOIN job_results AS ended ON ended.tenant_id = open.tenant_id AND ended.job_id = open.job_id
 ORDER BY open.tenant_id, open.job_id
 LIMIT $1
