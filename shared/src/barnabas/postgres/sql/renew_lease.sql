-- renew_lease: one statement a worker. It never revives an expired lease, and hands over the cancels asked for since.
--   $1 worker_id uuid   $2 lease interval
-- rows:  none: the lease is over. Else one, with arrays of the running jobs to cancel.
WITH renewed AS (
    UPDATE workers
       SET lease_until = clock_timestamp() + $2
     WHERE worker_id = $1
       AND lease_until > clock_timestamp()
    RETURNING worker_id
),
asked AS (
    DELETE FROM cancel_requests
     WHERE worker_id = (SELECT renewed.worker_id FROM renewed)
    RETURNING job_id, fence
)
SELECT COALESCE((SELECT array_agg(asked.job_id) FROM asked), '{}') AS job_ids,
       COALESCE((SELECT array_agg(asked.fence) FROM asked), '{}') AS fences
  FROM renewed
