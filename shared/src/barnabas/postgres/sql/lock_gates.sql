-- lock_gates: the gates of these tenants, in key order; comes before any lock on jobs.
--   $1 tenant_ids uuid[]
SELECT tenant_id
  FROM gates
 WHERE kind = 1
   AND tenant_id = ANY ($1::uuid[])
 ORDER BY tenant_id
   FOR UPDATE
