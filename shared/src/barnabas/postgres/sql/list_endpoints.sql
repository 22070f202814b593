-- list_endpoints: a tenant's endpoints that aren't deleted, newest first.
--   $1 tenant_id uuid   $2 before endpoint_id uuid   $3 limit integer
SELECT endpoint_id, url, event_types, retry_schedule_seconds, headers, disabled_reason, created_at, disabled_at
  FROM endpoints
 WHERE tenant_id = $1
   AND deleted_at IS NULL
   AND endpoint_id < $2
 ORDER BY endpoint_id DESC
 LIMIT $3
