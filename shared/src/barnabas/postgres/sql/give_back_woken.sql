-- give_back_woken: let these waiting jobs be called again at once.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]
-- index: waiting_job
UPDATE waiting
   SET woken_at = NULL
  FROM unnest($1::uuid[], $2::uuid[]) AS called (tenant_id, job_id)
 WHERE waiting.tenant_id = called.tenant_id
   AND waiting.job_id = called.job_id
