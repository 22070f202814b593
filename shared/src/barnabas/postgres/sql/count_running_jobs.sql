-- count_running_jobs: give a place in each gate of a tenant to the running jobs that started before that gate was there.
--   $1 tenant_id uuid
-- locks: the rows of `jobs` (the caller has locked the gates before).   index: jobs_pkey
WITH limited AS (
    SELECT kind, type_id
      FROM gates
     WHERE tenant_id = $1
       AND kind IN (1, 2)
       AND allowed IS NOT NULL
),
running AS (
    SELECT job.job_id, job.type_id,
           job.hooks & 1 = 0 AND 1 IN (SELECT kind FROM limited) AS is_new_to_tenant,
           job.hooks & 256 = 0 AND job.type_id IN (SELECT type_id FROM limited WHERE kind = 2) AS is_new_to_type
      FROM jobs AS job
     WHERE job.tenant_id = $1
       AND job.state = 3
     ORDER BY job.job_id
       FOR UPDATE
),
marked AS (
    UPDATE jobs AS job
       SET hooks = job.hooks | CASE WHEN running.is_new_to_tenant THEN 1 ELSE 0 END | CASE WHEN running.is_new_to_type THEN 256 ELSE 0 END
      FROM running
     WHERE job.tenant_id = $1
       AND job.job_id = running.job_id
       AND (running.is_new_to_tenant OR running.is_new_to_type)
    RETURNING running.type_id, running.is_new_to_tenant, running.is_new_to_type
),
more AS (
    SELECT 1::smallint AS kind, 0 AS type_id, count(*) AS n FROM marked WHERE is_new_to_tenant
     UNION ALL
    SELECT 2::smallint, type_id, count(*) FROM marked WHERE is_new_to_type GROUP BY type_id
)
UPDATE gates
   SET used = gates.used + more.n
  FROM more
 WHERE gates.tenant_id = $1
   AND gates.kind = more.kind
   AND gates.type_id = more.type_id
   AND more.n > 0
