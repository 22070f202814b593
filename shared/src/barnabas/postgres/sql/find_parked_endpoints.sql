-- find_parked_endpoints: the next endpoints, in key order, that have parked deliveries; one step of the index each, however many are parked.
--   $1 tenant_id uuid, $2 endpoint_id uuid: where the last call ended   $3 how many at most   $4 worker_id uuid of the caller
-- rows:  is_ours where the oldest was parked by the caller or by a notifier that is dead.   index: deliveries_parked
WITH RECURSIVE head AS (
    (
        SELECT d.tenant_id, d.endpoint_id, d.worker_id, 1 AS step
          FROM deliveries AS d
         WHERE d.state = 1
           AND (d.tenant_id, d.endpoint_id) > ($1::uuid, $2::uuid)
         ORDER BY d.tenant_id, d.endpoint_id, d.event_id
         LIMIT 1
    )
     UNION ALL
    SELECT following.tenant_id, following.endpoint_id, following.worker_id, head.step + 1
      FROM head
      CROSS JOIN LATERAL (
          SELECT d.tenant_id, d.endpoint_id, d.worker_id
            FROM deliveries AS d
           WHERE d.state = 1
             AND (d.tenant_id, d.endpoint_id) > (head.tenant_id, head.endpoint_id)
           ORDER BY d.tenant_id, d.endpoint_id, d.event_id
           LIMIT 1
      ) AS following
     WHERE head.step < $3::integer
)
SELECT head.tenant_id, head.endpoint_id,
       head.worker_id = $4::uuid
           OR NOT EXISTS (SELECT 1 FROM workers WHERE workers.worker_id = head.worker_id AND workers.lease_until > clock_timestamp()) AS is_ours
  FROM head
