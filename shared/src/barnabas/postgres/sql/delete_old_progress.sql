-- delete_old_progress: reports of attempts that ended, in chunks; an attempt that still runs reports again.
--   $1 age interval   $2 rows at most integer
DELETE FROM job_progress
 WHERE (tenant_id, job_id) IN (SELECT tenant_id, job_id FROM job_progress WHERE at < now() - $1::interval ORDER BY at LIMIT $2)
