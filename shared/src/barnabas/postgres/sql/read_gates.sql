-- read_gates: a tenant's weight with each of its gates and how much of it is used; one row without a gate where it has none.
--   $1 tenant_id uuid
SELECT tenants.weight, gates.kind, gates.allowed, gates.used, gates.starts_allowed, job_types.name AS type,
       (SELECT COALESCE(sum(entry.n), 0)
          FROM unnest(gates.log_at, gates.log_counts) AS entry (at, n)
         WHERE entry.at + gates.window_seconds * interval '1 second' > clock_timestamp())::integer AS starts
  FROM tenants
  LEFT JOIN gates ON gates.tenant_id = tenants.tenant_id
  LEFT JOIN job_types ON job_types.type_id = gates.type_id
 WHERE tenants.tenant_id = $1
 ORDER BY gates.kind, job_types.name
