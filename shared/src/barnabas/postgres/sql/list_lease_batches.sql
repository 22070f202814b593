-- list_lease_batches: what Postgres thinks a worker holds.
--   $1 worker_id uuid
SELECT batch_id, claimed_at, tenant_ids, ref_ids, endpoint_ids
  FROM lease_batches
 WHERE worker_id = $1
 ORDER BY batch_id
