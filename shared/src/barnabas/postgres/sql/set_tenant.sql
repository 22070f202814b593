-- set_tenant: which tenant this transaction acts for; gone with it.
--   $1 tenant_id text
SELECT set_config('barnabas.tenant_id', $1, true)
