-- ask_what_waits: the leader's one question a second; every further statement follows from a yes.
--   $1 outbox_age interval   $2 overdue_grace interval
-- index: timers_poll_at, outbox_pkey, workers_pkey, waiting_pkey, gates_pkey, waiting_type; each part stops at its first row.
SELECT (SELECT timers.poll_at FROM timers ORDER BY timers.poll_at LIMIT 1) AS timer_at,
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
                    AND seat.kind = 1
                  ORDER BY seat.precedence, seat.seq
                  -- As many as wake_waiting_v1 would look at.
                  LIMIT GREATEST(COALESCE(gates.allowed - gates.used, 500), 0)
             ) AS head
            WHERE gates.kind = 1
              AND (head.woken_at IS NULL OR head.woken_at < now() - interval '30 seconds')
       ) ELSE false END AS gate_open,
       CASE WHEN EXISTS (SELECT 1 FROM waiting) THEN EXISTS (
           SELECT 1
             FROM workers
             CROSS JOIN LATERAL unnest(workers.type_ids) AS handled (type_id)
             JOIN waiting AS seat ON seat.type_id = handled.type_id AND seat.kind = 2
            WHERE workers.lease_until > clock_timestamp()
              AND (seat.woken_at IS NULL OR seat.woken_at < now() - interval '30 seconds')
       ) ELSE false END AS type_handled
