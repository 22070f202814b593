-- lock_tenant_gates: every gate of one tenant, in key order; comes before any lock on jobs.
--   $1 tenant_id uuid
SELECT kind, type_id
  FROM gates
 WHERE tenant_id = $1
 ORDER BY kind, type_id
   FOR UPDATE
