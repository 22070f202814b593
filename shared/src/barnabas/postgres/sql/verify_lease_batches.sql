-- verify_lease_batches: batches of workers that are gone, and heartbeats whose lease ended without anybody taking back what they held.
--   $1 limit integer
SELECT NULL::uuid AS tenant_id, found.ref_id, found.mark, found.detail
  FROM (
      SELECT batch.batch_id AS ref_id, batch.worker_id::text AS mark, format('a batch of %s, a worker without a heartbeat', batch.worker_id) AS detail
        FROM lease_batches AS batch
       WHERE NOT EXISTS (SELECT 1 FROM workers AS worker WHERE worker.worker_id = batch.worker_id)
       UNION ALL
      SELECT worker.worker_id, worker.lease_until::text, format('the lease of this %s ended at %s', worker.service, worker.lease_until)
        FROM workers AS worker
       WHERE worker.lease_until < clock_timestamp()
  ) AS found
 ORDER BY found.ref_id
 LIMIT $1
