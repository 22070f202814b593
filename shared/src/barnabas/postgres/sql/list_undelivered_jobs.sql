-- list_undelivered_jobs: jobs of a tenant that ended since then and whose event has no delivery, by id.
--   $1 tenant_id uuid   $2 after_job uuid   $3 since_event uuid   $4 limit integer
-- index: job_results_pkey of the days since then, deliveries_pkey
SELECT ended.job_id
  FROM job_results AS ended
 WHERE ended.tenant_id = $1
   AND ended.job_id > $2
   AND ended.event_id >= $3
   AND NOT EXISTS (
       SELECT 1
         FROM deliveries AS delivery
        WHERE delivery.tenant_id = ended.tenant_id
          AND delivery.event_id = ended.event_id
   )
 ORDER BY ended.job_id
 LIMIT $4
