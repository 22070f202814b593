-- finish_jobs: see finish_jobs_v1.
--   $1 worker_id uuid   $2 tenant_ids uuid[]   $3 job_ids uuid[] (in key order)   $4 fences integer[]   $5 states smallint[]
--   $6 results bytea[]   $7 errors bytea[]   $8 reasons text[]   $9 event_ids uuid[]   $10 batch_ids uuid[] that are done with
SELECT * FROM finish_jobs_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
