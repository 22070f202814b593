-- delete_old_idempotency_keys: one chunk of the keys that are kept no longer.
--   $1 age interval   $2 limit integer
-- index: idempotency_keys_created_at, idempotency_keys_pkey
WITH old AS MATERIALIZED (
    SELECT tenant_id, key
      FROM idempotency_keys
     WHERE created_at < now() - $1::interval
     ORDER BY created_at
     LIMIT $2
)
DELETE FROM idempotency_keys
 USING old
 WHERE idempotency_keys.tenant_id = old.tenant_id
   AND idempotency_keys.key = old.key
   AND idempotency_keys.created_at < now() - $1::interval
