-- insert_tenant: a new tenant; no row when the name is taken.
--   $1 tenant_id uuid   $2 name text
INSERT INTO tenants (tenant_id, name)
VALUES ($1, $2)
    ON CONFLICT ON CONSTRAINT tenants_name_key DO NOTHING
RETURNING created_at
