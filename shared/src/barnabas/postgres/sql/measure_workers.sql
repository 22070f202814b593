-- measure_workers: what the number of workers is decided from beside Kafka: the live ones, and what waits in Postgres for a place in a look-ahead.
-- Of a tenant with a limit no more counts than may start now: the rest is no work for anybody, however many workers there are.
-- index: workers_pkey, backlogs_pkey, gates_pkey, waiting_pkey; nothing but the few workers is read while there is no backlog.
SELECT (SELECT count(*) FROM workers WHERE workers.service = 'worker' AND workers.lease_until > clock_timestamp())::integer AS live,
       (SELECT count(*)
          FROM (
              SELECT 1
                FROM backlogs
                LEFT JOIN gates
                  ON gates.tenant_id = backlogs.tenant_id
                 AND gates.kind = 1
                 AND gates.type_id = 0
                CROSS JOIN LATERAL (
                    SELECT 1
                      FROM waiting AS seat
                     WHERE seat.tenant_id = backlogs.tenant_id
                       AND seat.kind = 4
                       AND seat.line = backlogs.queue_id
                     -- A tenant without a gate has no room to read; above this the answer is the maximum anyway.
                     LIMIT GREATEST(0, COALESCE(gate_room_v1(gates.allowed, gates.used, gates.starts_allowed, gates.window_seconds,
                                                             gates.log_at, gates.log_counts, clock_timestamp()), 500000))
                ) AS ready
               LIMIT 500000
          ) AS counted
       )::integer AS waiting
