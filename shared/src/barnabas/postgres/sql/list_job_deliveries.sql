-- list_job_deliveries: the deliveries of one job's end.
--   $1 tenant_id uuid   $2 event_id uuid
-- index: deliveries_pkey of the event's day.
SELECT d.delivery_id, d.event_id, d.endpoint_id, d.job_id, d.state, d.attempt, d.created_at, d.due_at, d.finished_at, d.last_status, d.error
  FROM deliveries AS d
 WHERE d.tenant_id = $1
   AND d.event_id = $2
 ORDER BY d.endpoint_id
 LIMIT 1000
