-- list_api_keys: a tenant's keys, newest first, revoked ones too.
--   $1 tenant_id uuid   $2 before key_id uuid   $3 limit integer
SELECT key_id, name, prefix, created_at, revoked_at
  FROM api_keys
 WHERE tenant_id = $1
   AND key_id < $2
 ORDER BY key_id DESC
 LIMIT $3
