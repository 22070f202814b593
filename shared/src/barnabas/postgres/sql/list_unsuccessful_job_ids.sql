-- list_unsuccessful_job_ids: as list_ended_job_ids, for states that no successful job is in.
--   $1 tenant_id uuid   $2 before job_id uuid   $3 limit integer   $4 type text or NULL   $5 queue text or NULL   $6 from job_id uuid
--   $7 states smallint[]
-- index: job_results_unsuccessful of each day, merged.
SELECT job_id
  FROM job_results
 WHERE tenant_id = $1
   AND job_id < $2
   AND job_id >= $6
   AND ($4::text IS NULL OR type_id = (SELECT type_id FROM job_types WHERE name = $4))
   AND ($5::text IS NULL OR queue_id = (SELECT queue_id FROM queues WHERE name = $5))
   AND state <> 5
   AND state = ANY ($7::smallint[])
 ORDER BY job_id DESC
 LIMIT $3
