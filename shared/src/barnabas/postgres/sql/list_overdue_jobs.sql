-- list_overdue_jobs: attempts that are past their own deadline and the grace, although their worker lives.
--   $1 grace interval   $2 limit integer
-- index: lease_batches_pkey (as many rows as batches are held now), jobs_pkey
SELECT job.worker_id, job.tenant_id, job.job_id
  FROM lease_batches AS batch
  CROSS JOIN LATERAL unnest(batch.tenant_ids, batch.ref_ids) AS held (tenant_id, job_id)
  JOIN jobs AS job ON job.tenant_id = held.tenant_id AND job.job_id = held.job_id
 WHERE batch.endpoint_ids IS NULL
   AND batch.claimed_at < clock_timestamp() - $1::interval
   AND job.worker_id = batch.worker_id
   AND job.state = 3
   AND job.started_at + make_interval(secs => job.timeout_ms / 1000.0) + $1::interval < clock_timestamp()
 LIMIT $2
