-- delete_kept_payloads: one chunk of payloads that were kept beyond their day and that no job, result or dead letter needs any more.
--   $1 limit integer
WITH free AS MATERIALIZED (
    SELECT kept.tenant_id, kept.job_id
      FROM job_payloads_kept AS kept
     WHERE NOT EXISTS (SELECT 1 FROM jobs AS job WHERE job.tenant_id = kept.tenant_id AND job.job_id = kept.job_id)
       AND NOT EXISTS (SELECT 1 FROM job_results AS ended WHERE ended.tenant_id = kept.tenant_id AND ended.job_id = kept.job_id)
       AND NOT EXISTS (SELECT 1 FROM dead_letters AS dead WHERE dead.tenant_id = kept.tenant_id AND dead.kind = 1 AND dead.ref = kept.job_id)
     LIMIT $1
)
DELETE FROM job_payloads_kept AS kept
 USING free
 WHERE kept.tenant_id = free.tenant_id
   AND kept.job_id = free.job_id
