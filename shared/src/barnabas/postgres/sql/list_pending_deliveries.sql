-- list_pending_deliveries: deliveries that may be tried now and that no notifier holds, oldest events first.
--   $1 limit integer
-- index: deliveries_pending of each day
SELECT delivery.tenant_id, delivery.event_id, delivery.endpoint_id, delivery.fence
  FROM deliveries AS delivery
 WHERE delivery.state = 0
 ORDER BY delivery.event_id
 LIMIT $1
