-- release_jobs: see release_jobs_v1.
--   $1 worker_id uuid   $2 tenant_ids uuid[]   $3 job_ids uuid[] (in key order)   $4 fences integer[]   $5 kinds smallint[]
--   $6 due_at timestamptz[]   $7 errors bytea[]   $8 batch_ids uuid[] that are done with
SELECT * FROM release_jobs_v1($1, $2, $3, $4, $5, $6, $7, $8)
