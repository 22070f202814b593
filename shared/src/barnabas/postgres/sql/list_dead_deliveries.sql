-- list_dead_deliveries: a page of a tenant's open dead letters that are deliveries, newest first.
--   $1 tenant_id uuid   $2 before delivery_id uuid   $3 limit integer   $4 reason text or NULL   $5 after timestamptz or NULL
--   $6 until timestamptz or NULL   $7 delivery_ids uuid[] or NULL
-- index: dead_letters_pkey, deliveries_id
SELECT dead.ref, dead.reason, dead.at, d.delivery_id, d.event_id, d.endpoint_id, d.job_id, d.state, d.attempt, d.created_at, d.due_at, d.finished_at,
       d.last_status, d.error
  FROM dead_letters AS dead
  JOIN deliveries AS d ON d.tenant_id = dead.tenant_id AND d.delivery_id = dead.ref
 WHERE dead.tenant_id = $1
   AND dead.kind = 2
   AND dead.ref < $2
   AND ($7::uuid[] IS NULL OR dead.ref = ANY ($7))
   AND ($4::text IS NULL OR dead.reason = $4)
   AND ($5::timestamptz IS NULL OR dead.at > $5)
   AND ($6::timestamptz IS NULL OR dead.at < $6)
 ORDER BY dead.ref DESC
 LIMIT $3
