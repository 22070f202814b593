-- verify_attempts: open jobs with more attempts than they may have, more losses than end a job, or a count below zero.
--   $1 limit integer   $2 losses_max integer
SELECT job.tenant_id, job.job_id AS ref_id, format('%s/%s', job.attempt, job.losses) AS mark,
       format('attempt %s of %s, losses %s', job.attempt, COALESCE(job.max_attempts::text, 'its handler''s'), job.losses) AS detail
  FROM jobs AS job
 WHERE job.attempt > job.max_attempts
    OR job.attempt < 0
    OR job.attempt > job.fence
    OR job.losses >= $2
 ORDER BY job.tenant_id, job.job_id
 LIMIT $1
