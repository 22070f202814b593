-- reserve_redrives: places for this many redrives at a rate, behind those that were taken before; returns when the first is.
--   $1 tenant_id uuid   $2 kind smallint   $3 count integer   $4 rate double precision (redrives a second)
-- locks: the tenant's row of `redrive_paces`.
INSERT INTO redrive_paces AS pace (tenant_id, kind, next_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3::integer / $4::double precision))
    ON CONFLICT ON CONSTRAINT redrive_paces_pkey DO UPDATE
       SET next_at = GREATEST(pace.next_at, clock_timestamp()) + make_interval(secs => $3::integer / $4::double precision)
RETURNING pace.next_at - make_interval(secs => $3::integer / $4::double precision) AS first_at
