-- revoke_api_key: end a key; one that has ended already stays as it is. No row: no such key.
--   $1 tenant_id uuid   $2 key_id uuid
UPDATE api_keys
   SET revoked_at = COALESCE(revoked_at, now())
 WHERE tenant_id = $1
   AND key_id = $2
RETURNING revoked_at
