-- delete_endpoint: no deliveries to this URL from now on; its row stays for the deliveries that name it, its secrets go. No row: no such endpoint.
--   $1 tenant_id uuid   $2 endpoint_id uuid
WITH gone AS (
    UPDATE endpoints
       SET deleted_at = now()
     WHERE tenant_id = $1
       AND endpoint_id = $2
       AND deleted_at IS NULL
    RETURNING endpoint_id
),
forgotten AS (
    DELETE FROM endpoint_secrets
     USING gone
     WHERE endpoint_secrets.tenant_id = $1
       AND endpoint_secrets.endpoint_id = gone.endpoint_id
)
SELECT endpoint_id
  FROM gone
