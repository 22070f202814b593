-- release_deliveries: see release_deliveries_v1.
--   $1 worker_id uuid   $2 tenant_ids uuid[]   $3 event_ids uuid[]   $4 endpoint_ids uuid[]   $5 fences integer[]
--   $6 batch_ids uuid[] that are done with
SELECT * FROM release_deliveries_v1($1, $2, $3, $4, $5, $6)
