-- list_deliveries: a page of a tenant's deliveries, newest first.
--   $1 tenant_id uuid   $2 before delivery_id uuid   $3 limit integer   $4 states smallint[] or NULL   $5 endpoint_id uuid or NULL
--   $6 job_id uuid or NULL
-- index: deliveries_id of each day, merged.
SELECT delivery_id, event_id, endpoint_id, job_id, state, attempt, created_at, due_at, finished_at, last_status, error
  FROM deliveries
 WHERE tenant_id = $1
   AND delivery_id < $2
   AND ($4::smallint[] IS NULL OR state = ANY ($4))
   AND ($5::uuid IS NULL OR endpoint_id = $5)
   AND ($6::uuid IS NULL OR job_id = $6)
 ORDER BY delivery_id DESC
 LIMIT $3
