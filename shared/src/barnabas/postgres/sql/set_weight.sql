-- set_weight: change a tenant's weight; no row when it is that already.
--   $1 tenant_id uuid   $2 weight smallint
UPDATE tenants
   SET weight = $2
 WHERE tenant_id = $1
   AND weight <> $2
RETURNING true
