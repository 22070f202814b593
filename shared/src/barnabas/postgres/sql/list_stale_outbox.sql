-- list_stale_outbox: rows that their writer has left behind, oldest first.
--   $1 age interval   $2 limit integer
-- index: outbox_pkey
SELECT outbox_id, created_at, kind, tenant_ids, ref_ids, endpoint_ids, fences
  FROM outbox
 WHERE created_at < clock_timestamp() - $1::interval
 ORDER BY outbox_id
 LIMIT $2
