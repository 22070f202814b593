-- diagnose_waiting: what waits in Postgres and who is to bring it back.
-- rows:  one. Counts end at 100,000.   index: outbox_pkey, timers_poll_at, dead_letters_at, waiting_type, deliveries_pending of each day
SELECT (SELECT count(*) FROM outbox)::integer AS outbox_rows,
       (SELECT line.created_at FROM outbox AS line ORDER BY line.outbox_id LIMIT 1) AS outbox_at,
       (SELECT timer.poll_at FROM timers AS timer ORDER BY timer.poll_at LIMIT 1) AS timer_at,
       (SELECT count(*) FROM (SELECT 1 FROM timers AS timer WHERE timer.poll_at < clock_timestamp() LIMIT 100000) AS late)::integer AS timers_late,
       (SELECT count(*) FROM workers AS worker WHERE worker.service = 'worker' AND worker.lease_until > clock_timestamp())::integer AS workers,
       (SELECT count(*) FROM workers AS worker WHERE worker.service = 'notifier' AND worker.lease_until > clock_timestamp())::integer AS notifiers,
       (SELECT count(*) FROM workers AS worker WHERE worker.lease_until <= clock_timestamp())::integer AS leases_over,
       (SELECT min(worker.lease_until) FROM workers AS worker) AS lease_at,
       (SELECT leader.lease_until FROM leaders AS leader WHERE leader.role = 'retry-scheduler') AS lead_until,
       ARRAY[(SELECT min(letter.at) FROM dead_letters AS letter WHERE letter.kind = 1),
             (SELECT min(letter.at) FROM dead_letters AS letter WHERE letter.kind = 2)] AS letters_at,
       ARRAY[(SELECT count(*) FROM (SELECT 1 FROM dead_letters AS letter WHERE letter.kind = 1 LIMIT 100000) AS counted),
             (SELECT count(*) FROM (SELECT 1 FROM dead_letters AS letter WHERE letter.kind = 2 LIMIT 100000) AS counted)] AS letters,
       (SELECT count(*) FROM (SELECT 1 FROM jobs LIMIT 100000) AS counted)::integer AS open_jobs,
       (SELECT count(*) FROM backlogs)::integer AS backlogs,
       (SELECT count(*) FROM (SELECT 1 FROM deliveries AS delivery WHERE delivery.state = 0 LIMIT 100000) AS counted)::integer AS pending_deliveries,
       COALESCE((
           SELECT array_agg(unhandled.name ORDER BY unhandled.name)
             FROM (
                 SELECT kind.name
                   FROM (SELECT DISTINCT seat.line FROM waiting AS seat WHERE seat.kind = 3) AS held
                   JOIN job_types AS kind ON kind.type_id = held.line
                  WHERE NOT EXISTS (SELECT 1
                                      FROM workers AS worker
                                     WHERE worker.lease_until > clock_timestamp()
                                       AND held.line = ANY (worker.type_ids))
                  LIMIT 20
             ) AS unhandled
       ), '{}') AS unhandled
