-- find_held_jobs: which of these jobs a worker holds, as the reaper or a worker unsure of its memory must know.
--   $1 worker_id uuid   $2 tenant_ids uuid[]   $3 job_ids uuid[]
-- locks: the rows, in key order (the caller has locked the gates before).   index: jobs_pkey
SELECT job.tenant_id, job.job_id, job.fence, job.attempt, job.max_attempts, job.losses, job.hooks, job.started_at
  FROM unnest($2::uuid[], $3::uuid[]) AS held (tenant_id, job_id)
  JOIN jobs AS job ON job.tenant_id = held.tenant_id AND job.job_id = held.job_id
 WHERE job.worker_id = $1
   AND job.state = 3
 ORDER BY job.tenant_id, job.job_id
