-- set_gates: make or change these gates of a tenant and take the limits of its others away; returns the id of the transaction that did.
--   $1 tenant_id uuid   $2 kinds smallint[]   $3 type_ids integer[]   $4 allowed integer[]   $5 starts_allowed integer[]
-- locks: the rows of `gates` (the caller has locked those that are there).
WITH given AS (
    SELECT *
      FROM unnest($2::smallint[], $3::integer[], $4::integer[], $5::integer[]) AS t (kind, type_id, allowed, starts_allowed)
),
made AS (
    INSERT INTO gates (tenant_id, kind, type_id, allowed, starts_allowed)
    SELECT $1, given.kind, given.type_id, given.allowed, given.starts_allowed
      FROM given
     ORDER BY given.kind, given.type_id
        ON CONFLICT ON CONSTRAINT gates_pkey DO UPDATE SET allowed = excluded.allowed, starts_allowed = excluded.starts_allowed
),
cleared AS (
    -- The row stays, since jobs may hold places in it and others may wait at it.
    UPDATE gates
       SET allowed = NULL, starts_allowed = NULL
     WHERE gates.tenant_id = $1
       AND NOT EXISTS (SELECT 1 FROM given WHERE given.kind = gates.kind AND given.type_id = gates.type_id)
)
SELECT pg_current_xact_id()::text
