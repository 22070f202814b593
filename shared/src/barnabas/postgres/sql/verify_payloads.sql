-- verify_payloads: open jobs whose payload is nowhere.
--   $1 limit integer
-- index: job_payloads_pkey of one day each
SELECT job.tenant_id, job.job_id AS ref_id, 'payload' AS mark, 'is open, and its payload is gone' AS detail
  FROM jobs AS job
 WHERE NOT EXISTS (SELECT 1 FROM job_payloads AS sent WHERE sent.tenant_id = job.tenant_id AND sent.job_id = job.job_id)
   AND NOT EXISTS (SELECT 1 FROM job_payloads_kept AS kept WHERE kept.tenant_id = job.tenant_id AND kept.job_id = job.job_id)
 ORDER BY job.tenant_id, job.job_id
 LIMIT $1
