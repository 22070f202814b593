-- take_parked_deliveries: see take_parked_deliveries_v1.
--   $1 worker_id uuid   $2 batch_id uuid   $3 tenant_ids uuid[]   $4 endpoint_ids uuid[]   $5 rooms integer[]   $6 errors text[]
SELECT * FROM take_parked_deliveries_v1($1, $2, $3, $4, $5, $6)
