-- redrive_job: see redrive_job_v1.
--   $1 tenant_id uuid   $2 job_id uuid   $3 new job_id uuid   $4 due_at timestamptz
SELECT answer, job_id, outbox, type_id, priority, queue_id
  FROM redrive_job_v1($1, $2, $3, $4)
