-- redrive_deliveries: see redrive_deliveries_v1.
--   $1 tenant_id uuid   $2 delivery_ids uuid[]
SELECT * FROM redrive_deliveries_v1($1, $2)
