-- read_endpoints: these endpoints, deleted ones too, with their live secrets, newest first.
--   $1 tenant_ids uuid[]   $2 endpoint_ids uuid[]
SELECT e.tenant_id, e.endpoint_id, e.url, e.event_types, e.retry_schedule_seconds, e.headers, e.disabled_at, e.deleted_at,
       ARRAY(
           SELECT s.secret
             FROM endpoint_secrets AS s
            WHERE s.tenant_id = e.tenant_id
              AND s.endpoint_id = e.endpoint_id
              AND (s.expires_at IS NULL OR s.expires_at > now())
            ORDER BY s.created_at DESC, s.secret_id DESC
       ) AS secrets
  FROM unnest($1::uuid[], $2::uuid[]) AS wanted (tenant_id, endpoint_id)
  JOIN endpoints AS e ON e.tenant_id = wanted.tenant_id AND e.endpoint_id = wanted.endpoint_id
