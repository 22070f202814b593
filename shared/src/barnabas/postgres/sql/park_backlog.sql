-- park_backlog: see park_backlog_v1.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]   $3 queue_ids smallint[]
SELECT park_backlog_v1($1, $2, $3)
