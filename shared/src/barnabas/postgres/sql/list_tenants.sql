-- list_tenants: all tenants, newest first.
--   $1 before tenant_id uuid   $2 limit integer
SELECT tenant_id, name, created_at
  FROM tenants
 WHERE tenant_id < $1
 ORDER BY tenant_id DESC
 LIMIT $2
