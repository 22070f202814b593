-- insert_endpoint: a tenant's URL and its first secret, under the tenant's own row security.
--   $1 tenant_id uuid   $2 endpoint_id uuid   $3 url text   $4 event_types text[] or NULL   $5 retry_schedule_seconds float8[] or NULL
--   $6 headers jsonb or NULL   $7 secret_id uuid   $8 secret text
WITH made AS (
    INSERT INTO endpoints (tenant_id, endpoint_id, url, event_types, retry_schedule_seconds, headers)
    VALUES ($1, $2, $3, $4, $5, $6)
    RETURNING created_at
),
kept AS (
    INSERT INTO endpoint_secrets (tenant_id, endpoint_id, secret_id, secret)
    VALUES ($1, $2, $7, $8)
)
SELECT created_at
  FROM made
