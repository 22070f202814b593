-- has_tenant: whether there is such a tenant.
--   $1 tenant_id uuid
SELECT EXISTS (SELECT 1 FROM tenants WHERE tenant_id = $1)
