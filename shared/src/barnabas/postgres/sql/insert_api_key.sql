-- insert_api_key: a new key of a tenant; no row when there is no such tenant.
--   $1 tenant_id uuid   $2 key_id uuid   $3 name text   $4 prefix text   $5 secret_hash bytea
INSERT INTO api_keys (tenant_id, key_id, name, prefix, secret_hash)
SELECT tenant_id, $2, $3, $4, $5
  FROM tenants
 WHERE tenant_id = $1
RETURNING created_at
