-- claim_jobs: see claim_jobs_v1.
--   $1 worker_id uuid   $2 batch_id uuid   $3 tenant_ids uuid[]   $4 job_ids uuid[] (in key order)   $5 type_ids integer[]
--   $6 timeouts_ms integer[], one for each type
SELECT * FROM claim_jobs_v1($1, $2, $3, $4, $5, $6)
