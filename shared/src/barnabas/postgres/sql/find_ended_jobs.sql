-- find_ended_jobs: which of these jobs have ended, or are nowhere any more: one question for everybody who waits.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]
-- index: jobs_pkey. An open job is in `jobs`; what isn't there has ended.
SELECT t.job_id
  FROM unnest($1::uuid[], $2::uuid[]) AS t (tenant_id, job_id)
 WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.tenant_id = t.tenant_id AND jobs.job_id = t.job_id)
