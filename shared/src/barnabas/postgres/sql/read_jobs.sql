-- read_jobs: whole jobs, open or ended, for people and for webhooks; unknown ids and other tenants' give no row.
--   $1 tenant_ids uuid[]   $2 job_ids uuid[]
WITH wanted AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS t (tenant_id, job_id, ord)
),
sent AS (
    SELECT wanted.ord, found.*
      FROM wanted
      CROSS JOIN LATERAL (
          SELECT day.tenant_id, day.job_id, day.redrive_of, day.created_at, day.run_at, day.type_id, day.priority, day.queue_id, day.max_attempts,
                 day.metadata, day.ordering_key
            FROM job_payloads AS day
           WHERE day.tenant_id = wanted.tenant_id
             AND day.job_id = wanted.job_id
           UNION ALL
          SELECT kept.tenant_id, kept.job_id, kept.redrive_of, kept.created_at, kept.run_at, kept.type_id, kept.priority, kept.queue_id, kept.max_attempts,
                 kept.metadata, kept.ordering_key
            FROM job_payloads_kept AS kept
           WHERE kept.tenant_id = wanted.tenant_id
             AND kept.job_id = wanted.job_id
           LIMIT 1
      ) AS found
)
SELECT sent.tenant_id, sent.job_id, kind.name AS type, queue.name AS queue, sent.priority, sent.created_at, sent.run_at, sent.redrive_of,
       sent.ordering_key, sent.metadata, COALESCE(ended.state, open.state) AS state, COALESCE(ended.attempt, open.attempt) AS attempt,
       COALESCE(ended.losses, open.losses) AS losses, COALESCE(ended.fence, open.fence) AS fence, sent.max_attempts,
       COALESCE(ended.started_at, open.started_at) AS started_at, ended.finished_at, ended.event_id, ended.result, ended.error, ended.reason, open.due_at,
       COALESCE(open.hooks & 32 <> 0, false) AS cancel_requested, report.percent, report.message
  FROM sent
  JOIN job_types AS kind ON kind.type_id = sent.type_id
  JOIN queues AS queue ON queue.queue_id = sent.queue_id
  LEFT JOIN jobs AS open ON open.tenant_id = sent.tenant_id AND open.job_id = sent.job_id
  LEFT JOIN job_progress AS report
    ON open.state = 3 AND report.tenant_id = open.tenant_id AND report.job_id = open.job_id AND report.fence = open.fence
  LEFT JOIN job_results AS ended ON ended.tenant_id = sent.tenant_id AND ended.job_id = sent.job_id
 WHERE open.job_id IS NOT NULL
    OR ended.job_id IS NOT NULL
 ORDER BY sent.ord
