-- read_later_jobs: those of these jobs that still wait for the due time that they had; one that moved on gives no row.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]   $3 fences integer[]
SELECT job.tenant_id, job.job_id, job.fence, job.priority, job.queue_id, job.type_id, job.due_at
  FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS told (tenant_id, job_id, fence)
  JOIN jobs AS job ON job.tenant_id = told.tenant_id AND job.job_id = told.job_id
 WHERE job.fence = told.fence
   AND job.state IN (0, 4)
   AND job.due_at IS NOT NULL
