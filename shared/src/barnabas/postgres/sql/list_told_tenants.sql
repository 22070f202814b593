-- list_told_tenants: tenants with an endpoint that wants to be told.
SELECT DISTINCT tenant_id
  FROM endpoints
 WHERE deleted_at IS NULL
   AND disabled_at IS NULL
 ORDER BY tenant_id
