-- turn_jobs: see turn_jobs_v1. An empty array of results, errors or reasons stands for one of NULLs.
--   $1 worker_id uuid   $2 ended tenant_ids uuid[]   $3 ended job_ids uuid[] (in key order)   $4 fences integer[]   $5 states smallint[]
--   $6 results bytea[]   $7 errors bytea[]   $8 reasons text[]   $9 event_ids uuid[]   $10 batch_ids uuid[] that are done with
--   $11 outbox_ids bigint[] that Kafka was told   $12 batch_id uuid   $13 tenant_ids uuid[]   $14 job_ids uuid[] (in key order)
--   $15 type_ids integer[]   $16 timeouts_ms integer[], one for each type
SELECT * FROM turn_jobs_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
