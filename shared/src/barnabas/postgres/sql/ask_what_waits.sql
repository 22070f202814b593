-- ask_what_waits: the leader's one question a second; every further statement follows from a yes.
-- Now and then it renews the lead as well, so that this is no statement of its own.
--   $1 outbox_age interval   $2 overdue_grace interval   $3 role text   $4 holder uuid   $5 lease interval   $6 renews boolean
-- rows:  one; `renewed` says whether the lead was renewed: with $6, no means that somebody else has it.
-- index: timers_poll_at, outbox_pkey, workers_pkey, waiting_pkey, gates_pkey, waiting_type; each part stops at its first row.
WITH renewal AS (
    UPDATE leaders
       SET lease_until = clock_timestamp() + $5::interval
     WHERE $6
       AND role = $3
       AND holder = $4
    RETURNING role
)
SELECT EXISTS (SELECT 1 FROM renewal) AS renewed,
       (SELECT timers.poll_at FROM timers ORDER BY timers.poll_at LIMIT 1) AS timer_at,
       COALESCE((SELECT outbox.created_at FROM outbox ORDER BY outbox.outbox_id LIMIT 1) < clock_timestamp() - $1::interval, false) AS outbox_stale,
       EXISTS (SELECT 1 FROM workers WHERE workers.lease_until < clock_timestamp()) AS lease_over,
       EXISTS (SELECT 1 FROM lease_batches WHERE lease_batches.claimed_at < clock_timestamp() - $2::interval) AS batch_old,
       CASE WHEN EXISTS (SELECT 1 FROM waiting) THEN EXISTS (
           SELECT 1
             FROM gates
             CROSS JOIN LATERAL (
                 SELECT seat.woken_at
                   FROM waiting AS seat
                  WHERE seat.tenant_id = gates.tenant_id
                    AND seat.kind = gates.kind
                    AND seat.line = gates.type_id
                  ORDER BY seat.precedence, seat.seq
                  -- As many as wake_waiting_v1 would look at.
                  LIMIT LEAST(GREATEST(COALESCE(gate_room_v1(gates.allowed, gates.used, gates.starts_allowed, gates.window_seconds, gates.log_at,
                                                             gates.log_counts, clock_timestamp()), 500), 0), 500)
             ) AS head
            WHERE gates.kind IN (1, 2)
              AND gates.crowded
              AND (head.woken_at IS NULL OR head.woken_at < now() - interval '30 seconds')
       ) ELSE false END AS gate_open,
       CASE WHEN EXISTS (SELECT 1 FROM waiting) THEN EXISTS (
           SELECT 1
             FROM workers
             CROSS JOIN LATERAL unnest(workers.type_ids) AS handled (type_id)
             JOIN waiting AS seat ON seat.line = handled.type_id AND seat.kind = 3
             JOIN jobs AS job ON job.tenant_id = seat.tenant_id AND job.job_id = seat.job_id AND job.queue_id = ANY (workers.queue_ids)
            WHERE workers.lease_until > clock_timestamp()
              AND (seat.woken_at IS NULL OR seat.woken_at < now() - interval '30 seconds')
       ) ELSE false END AS type_handled
