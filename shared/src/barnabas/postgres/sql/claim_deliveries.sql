-- claim_deliveries: see claim_deliveries_v1.
--   $1 worker_id uuid   $2 batch_id uuid   $3 tenant_ids uuid[]   $4 event_ids uuid[]   $5 endpoint_ids uuid[]   $6 actions smallint[]
--   $7 errors text[]
SELECT * FROM claim_deliveries_v1($1, $2, $3, $4, $5, $6, $7)
