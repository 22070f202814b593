-- read_untold_deliveries: what an outbox row of kind 4 has to say, as its deliveries are now; one that moved on since gives no row.
--   $1 tenant_ids uuid[]   $2 event_ids uuid[]   $3 endpoint_ids uuid[]   $4 fences integer[]
-- rows:  pending (0), retrying (3), or failed (5) with the reason of its open dead letter.
SELECT d.tenant_id, d.event_id, d.endpoint_id, d.fence, d.state, d.due_at, d.delivery_id, d.job_id, d.attempt, d.last_status, d.error, d.finished_at,
       dead.reason
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::integer[]) WITH ORDINALITY AS told (tenant_id, event_id, endpoint_id, fence, ord)
  JOIN deliveries AS d ON d.tenant_id = told.tenant_id AND d.event_id = told.event_id AND d.endpoint_id = told.endpoint_id AND d.fence = told.fence
  LEFT JOIN dead_letters AS dead ON d.state = 5 AND dead.tenant_id = d.tenant_id AND dead.kind = 2 AND dead.ref = d.delivery_id
 WHERE d.state IN (0, 3)
    OR (d.state = 5 AND dead.reason IS NOT NULL)
 ORDER BY told.ord
