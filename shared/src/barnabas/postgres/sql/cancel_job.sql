-- cancel_job: see cancel_job_v1.
--   $1 tenant_id uuid   $2 job_id uuid
SELECT * FROM cancel_job_v1($1, $2)
