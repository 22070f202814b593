-- verify_undelivered: ends of jobs that an endpoint wanted to hear of, there before the job ended and there now, without a delivery to it. An event that
-- the notifier hasn't read yet is one too. Reads every day that is kept, of tenants with endpoints.
--   $1 limit integer
-- index: job_results_pkey, deliveries_pkey of one day each
SELECT ended.tenant_id, ended.job_id AS ref_id, endpoint.endpoint_id::text AS mark,
       format('ended at %s; endpoint %s has no delivery of it', ended.finished_at, endpoint.endpoint_id) AS detail
  FROM endpoints AS endpoint
  JOIN job_results AS ended ON ended.tenant_id = endpoint.tenant_id
 WHERE endpoint.deleted_at IS NULL
   AND endpoint.disabled_at IS NULL
   -- A notifier that read the tenant's endpoints a moment before may not have known this one.
   AND ended.finished_at > endpoint.created_at + interval '10 seconds'
   AND ended.finished_at < clock_timestamp() - interval '10 seconds'
   AND (COALESCE(endpoint.event_types, '{}') = '{}'
        OR (CASE ended.state WHEN 5 THEN 'job.succeeded' WHEN 6 THEN 'job.failed' ELSE 'job.cancelled' END) = ANY (endpoint.event_types))
   AND NOT EXISTS (SELECT 1
                     FROM deliveries AS delivery
                    WHERE delivery.tenant_id = ended.tenant_id
                      AND delivery.event_id = ended.event_id
                      AND delivery.endpoint_id = endpoint.endpoint_id)
 ORDER BY ended.tenant_id, ended.job_id, endpoint.endpoint_id
 LIMIT $1
