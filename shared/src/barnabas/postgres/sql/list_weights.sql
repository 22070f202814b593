-- list_weights: the tenants that get more than others where several wait; most weigh 1 and aren't among them.
-- index: tenants_pkey, once for each change
SELECT tenant_id, weight
  FROM tenants
 WHERE weight <> 1
