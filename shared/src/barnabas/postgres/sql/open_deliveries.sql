-- open_deliveries: see open_deliveries_v1.
--   $1 worker_id uuid   $2 batch_id uuid   $3 tenant_ids uuid[]   $4 event_ids uuid[]   $5 endpoint_ids uuid[]   $6 delivery_ids uuid[]
--   $7 job_ids uuid[]   $8 states smallint[]   $9 errors text[]
SELECT * FROM open_deliveries_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)
