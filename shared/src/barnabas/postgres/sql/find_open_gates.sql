-- find_open_gates: tenants whose gate has room for someone who waits and hasn't just been called.
--   $1 limit integer
-- index: gates_pkey, waiting_pkey
SELECT gates.tenant_id
  FROM gates
 WHERE gates.kind = 1
   AND EXISTS (
       SELECT 1
         FROM (
             SELECT seat.woken_at
               FROM waiting AS seat
              WHERE seat.tenant_id = gates.tenant_id
                AND seat.kind = 1
              ORDER BY seat.precedence, seat.seq
              LIMIT GREATEST(COALESCE(gates.allowed - gates.used, 500), 0)
         ) AS head
        WHERE head.woken_at IS NULL
           OR head.woken_at < now() - interval '30 seconds'
   )
 ORDER BY gates.tenant_id
 LIMIT $1
