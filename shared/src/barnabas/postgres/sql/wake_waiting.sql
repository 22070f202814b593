-- wake_waiting: see wake_waiting_v1; in the transaction that locked these tenants' gates.
--   $1 tenant_ids uuid[]
SELECT * FROM wake_waiting_v1($1)
