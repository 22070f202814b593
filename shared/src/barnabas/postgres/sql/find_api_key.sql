-- find_api_key: whose key this is, for a credential that names it.
--   $1 key_id uuid
SELECT tenant_id, secret_hash
  FROM api_keys
 WHERE key_id = $1
   AND revoked_at IS NULL
