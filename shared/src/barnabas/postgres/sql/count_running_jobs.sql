-- count_running_jobs: give a place in the gate to each running job that started before the gate was there.
--   $1 tenant_id uuid
-- locks: the rows of `jobs` (the caller has locked the gate before).   index: jobs_pkey
WITH running AS (
    SELECT job_id
      FROM jobs
     WHERE tenant_id = $1
       AND state = 3
       AND hooks & 1 = 0
     ORDER BY job_id
       FOR UPDATE
),
marked AS (
    UPDATE jobs AS job
       SET hooks = job.hooks | 1
      FROM running
     WHERE job.tenant_id = $1
       AND job.job_id = running.job_id
    RETURNING job.job_id
)
UPDATE gates
   SET used = used + (SELECT count(*) FROM marked)
 WHERE tenant_id = $1
   AND kind = 1
