-- verify_parked_jobs: places in `waiting` of jobs that aren't open, and places from which nobody calls: their gate or backlog isn't there, or the
-- gate says that nobody waits.
--   $1 limit integer
SELECT seat.tenant_id, seat.job_id AS ref_id, format('%s/%s/%s', seat.kind, seat.line, seat.seq) AS mark,
       CASE WHEN job.job_id IS NULL THEN 'waits in a line, and is not open'
            WHEN job.state NOT IN (0, 2, 4) THEN 'waits in a line although it runs or is blocked'
            WHEN seat.kind = 4 THEN 'waits in a backlog that is not noted: nobody fetches it'
            WHEN gate.tenant_id IS NULL THEN 'waits at a gate that is not there'
            ELSE 'waits at a gate that says that nobody waits'
       END AS detail
  FROM waiting AS seat
  LEFT JOIN jobs AS job ON job.tenant_id = seat.tenant_id AND job.job_id = seat.job_id
  LEFT JOIN gates AS gate ON seat.kind IN (1, 2) AND gate.tenant_id = seat.tenant_id AND gate.kind = seat.kind AND gate.type_id = seat.line
 WHERE job.job_id IS NULL
    OR job.state NOT IN (0, 2, 4)
    OR (seat.kind IN (1, 2) AND gate.crowded IS NOT TRUE)
    OR (seat.kind = 4 AND NOT EXISTS (SELECT 1 FROM backlogs WHERE backlogs.tenant_id = seat.tenant_id AND backlogs.queue_id = seat.line))
 ORDER BY seat.tenant_id, seat.job_id
 LIMIT $1
