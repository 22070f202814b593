-- read_outbox: these rows, as far as they still exist.
--   $1 outbox_ids bigint[]
SELECT outbox_id, created_at, kind, tenant_ids, ref_ids, endpoint_ids, fences
  FROM outbox
 WHERE outbox_id = ANY ($1::bigint[])
 ORDER BY outbox_id
