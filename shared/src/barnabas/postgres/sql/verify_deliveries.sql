-- verify_deliveries: open deliveries that nobody holds or brings back: in flight without a lease, waiting for a time without a timer, parked at an
-- endpoint that isn't there. Reads every day that is kept; a pending one is told again by the reconciler.
--   $1 limit integer
WITH held AS MATERIALIZED (
    SELECT DISTINCT batch.worker_id, line.event_id, line.endpoint_id
      FROM lease_batches AS batch
      JOIN workers AS worker ON worker.worker_id = batch.worker_id
      CROSS JOIN LATERAL unnest(batch.ref_ids, batch.endpoint_ids) AS line (event_id, endpoint_id)
     WHERE batch.endpoint_ids IS NOT NULL
)
SELECT delivery.tenant_id, delivery.delivery_id AS ref_id, format('%s/%s', delivery.state, delivery.fence) AS mark,
       CASE delivery.state WHEN 2 THEN format('is in flight for notifier %s, and no live lease batch names it', delivery.worker_id)
                           WHEN 3 THEN format('is due at %s and has no timer', delivery.due_at)
                           ELSE 'is parked at an endpoint that is not there' END AS detail
  FROM deliveries AS delivery
  LEFT JOIN held ON held.event_id = delivery.event_id AND held.endpoint_id = delivery.endpoint_id AND held.worker_id = delivery.worker_id
 WHERE (delivery.state = 2 AND held.event_id IS NULL)
    OR (delivery.state = 3
        AND NOT EXISTS (SELECT 1
                          FROM timers AS timer
                         WHERE timer.tenant_id = delivery.tenant_id
                           AND timer.ref_id = delivery.event_id
                           AND timer.endpoint_id = delivery.endpoint_id))
    OR (delivery.state = 1
        AND NOT EXISTS (SELECT 1
                          FROM endpoints AS endpoint
                         WHERE endpoint.tenant_id = delivery.tenant_id
                           AND endpoint.endpoint_id = delivery.endpoint_id))
 ORDER BY delivery.tenant_id, delivery.delivery_id
 LIMIT $1
