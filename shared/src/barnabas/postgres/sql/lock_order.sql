-- lock_order: the lines of these jobs' ordering keys; comes after gates and before jobs.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]
SELECT lock_order_v1($1, $2)
