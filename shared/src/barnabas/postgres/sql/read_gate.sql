-- read_gate: a tenant's limit of running jobs and how many places are taken.
--   $1 tenant_id uuid
SELECT allowed, used
  FROM gates
 WHERE tenant_id = $1
   AND kind = 1
