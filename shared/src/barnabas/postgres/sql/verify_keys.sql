-- verify_keys: idempotency keys of jobs that never were: of the newest 100,000 keys.
--   $1 limit integer
-- index: idempotency_keys_created_at, job_payloads_pkey of one day each
SELECT held.tenant_id, held.job_id AS ref_id, held.key AS mark, 'a known idempotency key answers with this job, which was never accepted' AS detail
  FROM (
      SELECT newest.tenant_id, newest.job_id, newest.key
        FROM idempotency_keys AS newest
       ORDER BY newest.created_at DESC
       LIMIT 100000
  ) AS held
 WHERE NOT EXISTS (SELECT 1 FROM job_payloads AS sent WHERE sent.tenant_id = held.tenant_id AND sent.job_id = held.job_id)
   AND NOT EXISTS (SELECT 1 FROM job_payloads_kept AS kept WHERE kept.tenant_id = held.tenant_id AND kept.job_id = held.job_id)
 ORDER BY held.tenant_id, held.job_id
 LIMIT $1
