-- turn_jobs: see turn_jobs_v1. An empty array of results, errors or reasons stands for one of NULLs.
--   $1 worker_id uuid   $2 outbox_ids bigint[] that Kafka was told
--   $3 ended tenant_ids uuid[]   $4 ended job_ids uuid[] (in key order)   $5 fences integer[]   $6 states smallint[]   $7 results bytea[]   $8 errors bytea[]
--   $9 reasons text[]   $10 event_ids uuid[]   $11 ordered boolean   $12 hold boolean
--   $13 left tenant_ids uuid[]   $14 left job_ids uuid[] (in key order)   $15 fences integer[]   $16 kinds smallint[]   $17 due_at timestamptz[]   $18 errors bytea[]
--   $19 batch_ids uuid[] that are done with   $20 tenant_ids uuid[] to be woken   $21 spare integer   $22 keep boolean
--   $23 batch_id uuid (NULL = no claim)   $24 tenant_ids uuid[]   $25 job_ids uuid[] (in key order)   $26 type_ids integer[]
--   $27 timeouts_ms integer[], one for each type
SELECT * FROM turn_jobs_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)
