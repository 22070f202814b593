-- renew_lease: one statement a worker. It never revives an expired lease, and hands over the cancels asked for since.
--   $1 worker_id uuid   $2 lease interval
-- rows:  none: the lease is over. Else one: arrays of the running jobs to cancel, the revision of what workers keep in
--        memory of weights and shares, and whether any tenant has a backlog in its queues.
WITH renewed AS (
    UPDATE workers
       SET lease_until = clock_timestamp() + $2
     WHERE worker_id = $1
       AND lease_until > clock_timestamp()
    RETURNING worker_id, queue_ids
),
asked AS (
    DELETE FROM cancel_requests
     WHERE worker_id = (SELECT renewed.worker_id FROM renewed)
    RETURNING job_id, fence
)
SELECT COALESCE((SELECT array_agg(asked.job_id) FROM asked), '{}') AS job_ids,
       COALESCE((SELECT array_agg(asked.fence) FROM asked), '{}') AS fences,
       (SELECT revisions.revision FROM revisions WHERE revisions.name = 'sharing') AS revision,
       EXISTS (SELECT 1 FROM backlogs WHERE backlogs.queue_id = ANY (renewed.queue_ids)) AS has_backlog
  FROM renewed
