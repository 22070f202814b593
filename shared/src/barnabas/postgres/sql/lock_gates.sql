-- lock_gates: the gates of these tenants, in key order; comes before any lock on jobs.
--   $1 tenant_ids uuid[]
SELECT tenant_id
  FROM gates
 WHERE tenant_id = ANY ($1::uuid[])
   AND kind IN (1, 2)
 ORDER BY tenant_id, kind, type_id
   FOR UPDATE
