-- read_explanation: everything of a tenant's own that may keep a job from running; no row for an unknown job and for another tenant's.
--   $1 tenant_id uuid   $2 job_id uuid   $3 rows that are counted at most, of each line and of the tenant's jobs: integer
-- rows:  one. Places count those before it and end at $3; seen = $3 says that there were more jobs than were looked at.
-- index: jobs_pkey, job_results_pkey of each day, ordering_pkey, waiting_pkey
WITH found AS (
    SELECT job.state, job.type_id, job.queue_id, job.priority, job.attempt, job.max_attempts, job.worker_id, job.ready_at, job.due_at, job.started_at,
           job.timeout_ms, job.hooks & 32 <> 0 AS cancel_requested, NULL::timestamptz AS finished_at, NULL::text AS reason, NULL::bytea AS error,
           job.state = 2 OR (job.state IN (0, 4) AND job.due_at <= now()) AS is_ready
      FROM jobs AS job
     WHERE job.tenant_id = $1
       AND job.job_id = $2
     UNION ALL
    SELECT ended.state, ended.type_id, ended.queue_id, ended.priority, ended.attempt, sent.max_attempts, ended.worker_id, NULL, NULL, ended.started_at,
           NULL, false, ended.finished_at, ended.reason, ended.error, false
      FROM job_results AS ended
      LEFT JOIN job_payloads AS sent ON sent.tenant_id = ended.tenant_id AND sent.job_id = ended.job_id
     WHERE ended.tenant_id = $1
       AND ended.job_id = $2
)
SELECT now() AS now, found.*, kind.name AS type, queue.name AS queue, last.kind AS last_kind, last.error AS last_error,
       place.ordering_key, turn.job_id AS turn_id, turn_job.state AS turn_state, line.before AS line_before,
       seat.kind AS seat_kind, seat.since AS seat_since, parked.before AS seat_before,
       of_tenant.allowed AS tenant_allowed, of_tenant.used AS tenant_used, of_tenant.starts_allowed AS tenant_starts,
       of_tenant.window_seconds AS tenant_window, of_tenant.log_at AS tenant_log_at, of_tenant.log_counts AS tenant_log_counts,
       of_type.allowed AS type_allowed, of_type.used AS type_used, of_type.starts_allowed AS type_starts,
       of_type.window_seconds AS type_window, of_type.log_at AS type_log_at, of_type.log_counts AS type_log_counts,
       others.seen, others.ahead, others.oldest_at
  FROM found
  JOIN job_types AS kind ON kind.type_id = found.type_id
  JOIN queues AS queue ON queue.queue_id = found.queue_id
  LEFT JOIN LATERAL (
      SELECT run.kind, run.error
        FROM job_attempts AS run
       WHERE found.state IN (0, 4)
         AND run.tenant_id = $1
         AND run.job_id = $2
       ORDER BY run.fence DESC, run.finished_at DESC
       LIMIT 1
  ) AS last ON true
  LEFT JOIN ordering AS place ON found.state = 1 AND place.tenant_id = $1 AND place.job_id = $2
  LEFT JOIN ordering_keys AS turn ON turn.tenant_id = place.tenant_id AND turn.ordering_key = place.ordering_key
  LEFT JOIN jobs AS turn_job ON turn_job.tenant_id = turn.tenant_id AND turn_job.job_id = turn.job_id
  LEFT JOIN LATERAL (
      SELECT count(*)::integer AS before
        FROM (
            SELECT 1
              FROM ordering AS other
             WHERE other.tenant_id = place.tenant_id
               AND other.ordering_key = place.ordering_key
               AND other.seq < place.seq
             LIMIT $3
        ) AS earlier
  ) AS line ON true
  LEFT JOIN waiting AS seat ON found.is_ready AND seat.tenant_id = $1 AND seat.job_id = $2
  LEFT JOIN LATERAL (
      SELECT count(*)::integer AS before
        FROM (
            SELECT 1
              FROM waiting AS other
             WHERE other.tenant_id = seat.tenant_id
               AND other.kind = seat.kind
               AND other.line = seat.line
               AND (other.precedence, other.seq) < (seat.precedence, seat.seq)
             LIMIT $3
        ) AS earlier
  ) AS parked ON true
  LEFT JOIN gates AS of_tenant ON of_tenant.tenant_id = $1 AND of_tenant.kind = 1
  LEFT JOIN gates AS of_type ON of_type.tenant_id = $1 AND of_type.kind = 2 AND of_type.type_id = found.type_id
  LEFT JOIN LATERAL (
      SELECT count(*)::integer AS seen, count(*) FILTER (WHERE other.is_ahead)::integer AS ahead, min(other.ready_at) FILTER (WHERE other.is_ahead) AS oldest_at
        FROM (
            -- By id, which is by age: the oldest are those that a look-ahead has first.
            SELECT job.ready_at,
                   job.queue_id = found.queue_id AND (job.state = 2 OR (job.state IN (0, 4) AND job.due_at <= now()))
                       AND (job.priority > found.priority OR (job.priority = found.priority AND job.job_id < $2)) AS is_ahead
              FROM jobs AS job
             WHERE found.is_ready
               AND job.tenant_id = $1
             ORDER BY job.job_id
             LIMIT $3
        ) AS other
  ) AS others ON true
 LIMIT 1
