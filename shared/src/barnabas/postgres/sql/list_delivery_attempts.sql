-- list_delivery_attempts: the calls made for one event, oldest first; bodies stay where they are.
--   $1 tenant_id uuid   $2 event_id uuid
-- index: delivery_attempts_pkey of the event's day.
SELECT endpoint_id, attempt, started_at, duration_ms, status, error
  FROM delivery_attempts
 WHERE tenant_id = $1
   AND event_id = $2
 ORDER BY endpoint_id, fence
 LIMIT 1000
