-- set_gate: make or change a tenant's limit of running jobs; returns the id of the transaction that did.
--   $1 tenant_id uuid   $2 allowed integer (NULL = no limit; the row stays, since jobs may hold places in it)
WITH made AS (
    INSERT INTO gates (tenant_id, kind, allowed)
    VALUES ($1, 1, $2)
        ON CONFLICT ON CONSTRAINT gates_pkey DO UPDATE SET allowed = excluded.allowed
    RETURNING tenant_id
)
SELECT pg_current_xact_id()::text FROM made
