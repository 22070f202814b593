-- list_attempts: a job's timeline, oldest first: attempts before the last, losses, hand-backs, snoozes; then the last attempt or the running one.
--   $1 tenant_id uuid   $2 job_id uuid
-- rows:  state is the job's own in the last line (3: it runs still), NULL in the others.
SELECT kind, attempt, fence, worker_id, started_at, finished_at, next_at, error, NULL::smallint AS state
  FROM job_attempts
 WHERE tenant_id = $1
   AND job_id = $2
 UNION ALL
-- The end of a job that nobody held (cancelled while it waited) was no attempt.
SELECT CASE WHEN reason = 'worker_lost' THEN 2 ELSE 1 END::smallint, CASE WHEN reason = 'worker_lost' THEN attempt + 1 ELSE attempt END::smallint, fence,
       worker_id, started_at, finished_at, NULL, error, state
  FROM job_results
 WHERE tenant_id = $1
   AND job_id = $2
   AND worker_id IS NOT NULL
 UNION ALL
SELECT 1::smallint, attempt, fence, worker_id, started_at, NULL, NULL, NULL, 3::smallint
  FROM jobs
 WHERE tenant_id = $1
   AND job_id = $2
   AND state = 3
 ORDER BY fence, finished_at
 LIMIT 1000
