-- read_ended_jobs: how these jobs ended, as their events tell it.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]
-- index: job_results_pkey of each day
SELECT ended.event_id, ended.tenant_id, ended.job_id, kind.name AS type, ended.state, ended.attempt, ended.fence, ended.reason
  FROM unnest($1::uuid[], $2::uuid[]) AS told (tenant_id, job_id)
  JOIN job_results AS ended ON ended.tenant_id = told.tenant_id AND ended.job_id = told.job_id
  JOIN job_types AS kind ON kind.type_id = ended.type_id
