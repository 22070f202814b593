-- find_open_gates: tenants with a gate that has room for someone who waits and hasn't just been called.
--   $1 limit integer
-- index: gates_pkey, waiting_pkey
SELECT DISTINCT gates.tenant_id
  FROM gates
 WHERE gates.kind IN (1, 2)
   AND gates.crowded
   AND EXISTS (
       SELECT 1
         FROM (
             SELECT seat.woken_at
               FROM waiting AS seat
              WHERE seat.tenant_id = gates.tenant_id
                AND seat.kind = gates.kind
                AND seat.line = gates.type_id
              ORDER BY seat.precedence, seat.seq
              LIMIT LEAST(GREATEST(COALESCE(gate_room_v1(gates.allowed, gates.used, gates.starts_allowed, gates.window_seconds, gates.log_at, gates.log_counts,
                                                         clock_timestamp()), 500), 0), 500)
         ) AS head
        WHERE head.woken_at IS NULL
           OR head.woken_at < now() - interval '30 seconds'
   )
 ORDER BY gates.tenant_id
 LIMIT $1
