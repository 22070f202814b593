-- read_next_opening: in how many seconds the next window of a gate at which somebody waits lets go of its oldest starts; NULL without one.
-- index: gates_pkey, waiting_pkey
SELECT extract(epoch FROM min(oldest.at + make_interval(secs => gates.window_seconds)) - clock_timestamp())::float8
  FROM gates
  CROSS JOIN LATERAL (
      SELECT entry.at
        FROM unnest(gates.log_at) AS entry (at)
       WHERE entry.at + make_interval(secs => gates.window_seconds) > clock_timestamp()
       ORDER BY entry.at
       LIMIT 1
  ) AS oldest
 WHERE gates.kind IN (1, 2)
   AND gates.crowded
   AND gates.starts_allowed IS NOT NULL
   AND EXISTS (SELECT 1 FROM waiting AS seat WHERE seat.tenant_id = gates.tenant_id AND seat.kind = gates.kind AND seat.line = gates.type_id)
