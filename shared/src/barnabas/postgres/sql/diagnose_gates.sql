-- diagnose_gates: limits at which somebody waits, the longest lines first.
--   $1 limit integer   $2 places that are counted of each line at most: integer
-- index: gates_pkey, waiting_pkey
SELECT gate.tenant_id, owner.name AS tenant, kind.name AS type, gate.allowed, gate.used, gate.starts_allowed, line.n AS waiting, line.since,
       gate_room_v1(gate.allowed, gate.used, gate.starts_allowed, gate.window_seconds, gate.log_at, gate.log_counts, clock_timestamp()) AS room
  FROM gates AS gate
  JOIN tenants AS owner ON owner.tenant_id = gate.tenant_id
  LEFT JOIN job_types AS kind ON kind.type_id = gate.type_id
  CROSS JOIN LATERAL (
      SELECT count(*)::integer AS n, min(seat.since) AS since
        FROM (
            SELECT waiting.since
              FROM waiting
             WHERE waiting.tenant_id = gate.tenant_id
               AND waiting.kind = gate.kind
               AND waiting.line = gate.type_id
             LIMIT $2
        ) AS seat
  ) AS line
 WHERE gate.kind IN (1, 2)
   AND gate.crowded
   AND line.n > 0
 ORDER BY line.n DESC, gate.tenant_id
 LIMIT $1
